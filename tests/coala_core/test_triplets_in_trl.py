"""The stored triplets are TRL's conversational preference format, as TRL itself sees it."""

import json

import pyarrow.parquet as pq
import pytest

from coala_core.config import TripletsConfig
from coala_core.triplets import build_triplets

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("trl")
    row = {"messages": [{"role": role, "content": role.upper()} for role in ("system", "user")]}
    row["messages"] += [
        {"role": r, "content": t} for r, t in (("assistant", "A1"), ("user", "U2"), ("assistant", "A2"))
    ]
    (folder / "rows.jsonl").write_text(json.dumps(row))
    triplets = build_triplets(TripletsConfig(conversations=str(folder / "rows.jsonl")))
    pq.write_table(triplets.table, folder / "triplets.parquet")
    return datasets.load_dataset(
        "parquet", data_files=str(folder / "triplets.parquet"), split="train", cache_dir=str(folder / "cache")
    )


@pytest.mark.slow
def test_trl_reads_the_triplets_as_conversational_preferences(dataset):
    trl = pytest.importorskip("trl.data_utils")
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>")),
        chat_template=TEMPLATE,
    )
    example = dataset[0]
    assert trl.is_conversational(example)
    preference = {name: example[name] for name in ("prompt", "chosen", "rejected")}
    assert trl.maybe_apply_chat_template(preference, tokenizer) == {
        "prompt": "<system>SYSTEM\n<user>USER\n<assistant>",
        "chosen": "A1\n",
        "rejected": "A2\n",
    }

"""TRL takes the stored triplets and every pair layout that a conversion writes: a step of training on each."""

from __future__ import annotations

import math

import pytest

from coala_core.config import TripletsConfig
from coala_core.convert import FLAT_TARGETS, PAIR_TARGETS, TARGETS, convert
from coala_core.stages import triplets as stage
from coala_core.storage import Store

AS_IT_IS = "triplets.parquet"
UNPAIRED = tuple(layout for layout in PAIR_TARGETS if layout.startswith("unpaired"))
PAIRED = (AS_IT_IS, *(layout for layout in PAIR_TARGETS if layout not in UNPAIRED))


@pytest.fixture(scope="module")
def triplets(tmp_path_factory, lessons):
    """Artifacts of the stage, by what a prompt holds: 72 pairs each."""
    store = Store(tmp_path_factory.mktemp("store"))
    configs = {name: TripletsConfig(conversations=str(lessons), history=name) for name in ("full", "turn")}
    return {name: stage.run(store, config).path / stage.TRIPLETS for name, config in configs.items()}


@pytest.fixture(scope="module")
def load(tmp_path_factory, triplets):
    """Load a layout, written in a format, with `datasets`."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("converted")

    def load_layout(layout, form=".parquet", history=None):
        history = history or ("turn" if layout in ("preference-standard", "unpaired-standard") else "full")
        path = triplets[history]
        if layout != AS_IT_IS:
            path = folder / f"{layout}-{history}{form}"
            convert(TripletsConfig(conversations=str(triplets[history])), path, layout, force=True)
        builder = {".parquet": "parquet", ".csv": "csv"}.get(form, "json")
        return datasets.load_dataset(builder, data_files=str(path), split="train", cache_dir=str(folder / "cache"))

    return load_layout


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tiny_models["qwen3"])


def settings(folder):
    """One step on two rows, on the processor, with nothing written or reported."""
    return {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "max_length": 512,
        "learning_rate": 0.01,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }


def takes_a_step(trainer):
    """Train, and see that the loss is a number and that weights moved."""
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    result = trainer.train()
    moved = [name for name, weight in trainer.model.named_parameters() if not weight.equal(before[name])]
    assert result.global_step == 1 and math.isfinite(result.training_loss) and moved


def causal_model(tiny_models):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_models["qwen3"])


@pytest.mark.slow
@pytest.mark.parametrize("layout", PAIRED)
def test_dpo_takes_a_step(tmp_path, load, tiny_models, tokenizer, layout):
    trl = pytest.importorskip("trl")
    dataset = load(layout)
    args = trl.DPOConfig(**settings(tmp_path))
    model, reference = causal_model(tiny_models), causal_model(tiny_models)
    trainer = trl.DPOTrainer(model, reference, args=args, train_dataset=dataset, processing_class=tokenizer)
    assert len(trainer.train_dataset) == len(dataset) == 72
    takes_a_step(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("layout", PAIRED)
def test_reward_modelling_takes_a_step(tmp_path, load, tiny_models, tokenizer, layout):
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    dataset = load(layout)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_models["qwen3"], num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    args = trl.RewardConfig(**settings(tmp_path))
    trainer = trl.RewardTrainer(model, args=args, train_dataset=dataset, processing_class=tokenizer)
    assert len(trainer.train_dataset) == 72
    takes_a_step(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("layout", UNPAIRED)
def test_kto_takes_a_step(tmp_path, load, tiny_models, tokenizer, layout):
    trl = pytest.importorskip("trl")
    args = trl.KTOConfig(**settings(tmp_path))
    model, reference = causal_model(tiny_models), causal_model(tiny_models)
    dataset = load(layout)
    trainer = trl.KTOTrainer(model, reference, args=args, train_dataset=dataset, processing_class=tokenizer)
    assert sum(trainer.train_dataset["label"]) == 72 and len(trainer.train_dataset) == 144
    takes_a_step(trainer)


@pytest.mark.slow
def test_conversational_forms_give_dpo_the_same_tokens(tmp_path, load, tiny_models, tokenizer):
    trl = pytest.importorskip("trl")
    seen = []
    for layout in (AS_IT_IS, "preference-conversational", "preference-conversational-implicit"):
        args = trl.DPOConfig(**settings(tmp_path))
        trainer = trl.DPOTrainer(
            causal_model(tiny_models),
            causal_model(tiny_models),
            args=args,
            train_dataset=load(layout),
            processing_class=tokenizer,
        )
        rows = trainer.train_dataset
        seen.append([rows[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")])
    assert seen[0][0] and seen[0] == seen[1] == seen[2]


@pytest.mark.slow
def test_the_template_writes_what_was_said(load, tokenizer):
    trl = pytest.importorskip("trl.data_utils")
    first = load("preference-conversational-implicit")[0]
    example = trl.maybe_extract_prompt({name: first[name] for name in ("chosen", "rejected")})
    assert trl.is_conversational(example)
    stored = load(AS_IT_IS)[0]
    (asked,), (good,), (bad,) = ([m["content"] for m in stored[name]] for name in ("prompt", "chosen", "rejected"))
    start = "<|im_start|>"
    assert trl.maybe_apply_chat_template(example, tokenizer) == {
        "prompt": f"{start}user\n{asked}<|im_end|>\n{start}assistant\n",
        "chosen": f"{good}<|im_end|>\n",
        "rejected": f"{bad}<|im_end|>\n",
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", [".parquet", ".json", ".jsonl", ".jsonl.gz"])
def test_every_pair_layout_loads_from_every_format(load, form):
    for layout in PAIR_TARGETS:
        dataset = load(layout, form, history="turn")
        assert len(dataset) == (144 if layout in UNPAIRED else 72)
        expected = load(layout, history="turn")
        assert set(dataset.column_names) == set(expected.column_names)
        assert [dict(row) for row in dataset] == [dict(row) for row in expected], layout


@pytest.mark.slow
def test_flat_layouts_load_from_csv(load):
    for layout in FLAT_TARGETS:
        rows, expected = load(layout, ".csv", history="turn"), load(layout, history="turn")
        for name in ("conversation_id", "chosen", "rejected", "prompt", "completion", "label"):
            assert name not in expected.column_names or rows[name][:] == expected[name][:], (layout, name)


@pytest.mark.slow
@pytest.mark.parametrize("form", [".parquet", ".json"])
def test_dialogue_layouts_load(tmp_path, lessons, form):
    datasets = pytest.importorskip("datasets")
    for layout in set(TARGETS) - set(PAIR_TARGETS):
        path = tmp_path / f"{layout}{form}"
        convert(TripletsConfig(conversations=str(lessons)), path, layout)
        dataset = datasets.load_dataset(
            form[1:], data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert len(dataset) == 24 and dataset[0]["topic"]


def test_datasets_loads_a_converted_preference(load):
    dataset = load("preference-conversational")
    rows = {name: [[message["role"] for message in said] for said in dataset[name]] for name in ("chosen", "rejected")}
    assert len(dataset) == 72 and rows == {name: [["assistant"]] * 72 for name in rows}
    assert {prompt[-1]["role"] for prompt in dataset["prompt"]} == {"user"}

"""The stage: files, reuse, and reports of real data."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from coala_core.config import QualityConfig, SplitConfig, TripletsConfig
from coala_core.stages import quality, split, triplets
from coala_core.storage import Artifact, Store
from tests.lessons import digests, lesson, write_lessons

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data sets at {SHARED}")
SHARES = SplitConfig(train=0.6, validation=0.2)


def made(store: Path, lessons: Path) -> tuple[Store, Artifact, Artifact]:
    shelf = Store(store)
    built = triplets.run(shelf, TripletsConfig(conversations=str(lessons)))
    return shelf, built, split.run(shelf, SHARES, built)


class Made(NamedTuple):
    """A store with a report."""

    store: Store
    triplets: Artifact
    split: Artifact
    report: Artifact


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, lessons: Path) -> Made:
    store, built, divided = made(tmp_path_factory.mktemp("quality"), lessons)
    return Made(store, built, divided, quality.run(store, QualityConfig(), built, divided))


def test_the_artifact_holds_report_markdown_and_pictures_and_is_the_same_elsewhere(
    first: Made, tmp_path: Path, lessons: Path
) -> None:
    store, built, divided = made(tmp_path, lessons)
    found = digests(first.report.path)
    assert set(found) == {"lengths.png", "turns.png", "quality.json", "quality.md", "manifest.json"}
    assert digests(quality.run(store, QualityConfig(), built, divided).path) == found
    markdown = (first.report.path / "quality.md").read_text(encoding="utf-8")
    assert markdown.startswith("# Quality of lessons&#46;jsonl\n\n72 pairs, 24 conversations, 24 groups.")
    assert re.findall(r"!\[.*\]\((.*)\)", markdown) == ["lengths.png", "turns.png"]


def test_the_page_has_the_same_text_without_the_pictures(first: Made) -> None:
    lines = (first.report.path / "quality.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if line and not line.startswith("![")]
    assert [line for line in quality.page(first.report.path).splitlines() if line] == shown


def test_the_key_follows_triplets_split_and_settings_and_is_reused(first: Made) -> None:
    other = split.run(first.store, SHARES.model_copy(update={"seed": 1}), first.triplets)
    keys = [
        quality.plan(first.store, config, first.triplets, cut).key
        for config in (QualityConfig(), QualityConfig(seed=1))
        for cut in (first.split, None, other)
    ]
    assert len(set(keys)) == 6 and keys[0] == first.report.key
    again = quality.run(first.store, QualityConfig(), first.triplets, first.split)
    assert again.timing == first.report.timing


def test_without_a_split_the_report_says_so(first: Made) -> None:
    report = quality.run(first.store, QualityConfig(), first.triplets)
    assert report.report["leak_share"] is None
    assert "Not measured: there is no split." in (report.path / "quality.md").read_text(encoding="utf-8")


def test_the_split_of_other_triplets_is_refused(first: Made, tmp_path: Path) -> None:
    _, _, other = made(tmp_path, write_lessons(tmp_path / "more.jsonl", 25))
    with pytest.raises(ValueError, match=r"needs the split of the triplets .*, got one of others, .*; split these"):
        quality.run(first.store, QualityConfig(), first.triplets, other)


def test_counts_agree_with_the_stages_before(tmp_path: Path) -> None:
    rows = [json.dumps(lesson(number)) for number in range(12)] + ["not JSON", "{}", "not JSON either"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows) + "\n")
    store, built, divided = made(tmp_path / "store", path)
    report = quality.run(store, QualityConfig(max_rejected_share=0.1, max_near_duplicate_share=1), built, divided)
    content = json.loads((report.path / "quality.json").read_text())
    assert content["size"]["pairs"] == built.report["triplets"] == sum(divided.report["pairs"].values()) == 36
    assert content["size"]["conversations"] == built.report["conversations"]
    assert content["length_bias"]["longer_share"] == pytest.approx(built.report["chosen_longer_share"])
    for name in ("prompt", "chosen", "rejected"):
        mean = content["size"]["characters"][name]["mean"]
        assert mean == pytest.approx(built.report[f"{name}_characters_mean"])
    reasons = {reason["fault"]: reason["count"] for reason in content["rows"]["reasons"]}
    assert reasons == built.report["rejected_by_reason"]
    assert [(row["row"]) for row in content["rows"]["reasons"][0]["first"]] == [13, 15]
    # Three of fifteen rows, more than a tenth.
    assert (report.report["rejected_share"], report.report["limits_exceeded"]) == (0.2, 1)
    assert report.report["exceeded"] == ["rows rejected"]


def report_of(tmp_path: Path, path: Path, **settings: str) -> tuple[Artifact, dict[str, object], str]:
    store = Store(tmp_path / "store")
    built = triplets.run(store, TripletsConfig(conversations=str(path), **settings))
    artifact = quality.run(store, QualityConfig(), built, split.run(store, SplitConfig(), built))
    content = json.loads((artifact.path / "quality.json").read_text())
    return artifact, content, (artifact.path / "quality.md").read_text(encoding="utf-8")


@pytest.mark.slow
@needs_shared_data
def test_book2dial(tmp_path: Path) -> None:
    path = tmp_path / "book2dial.jsonl"
    files = [SHARED / "book2dial" / f"{name}.jsonl.gz" for name in ("business", "math", "science", "social")]
    path.write_bytes(b"".join(gzip.decompress(file.read_bytes()) for file in files))
    artifact, content, markdown = report_of(tmp_path, path, group_by="title")
    assert (content["size"]["pairs"], content["size"]["conversations"], content["size"]["groups"]) == (4440, 889, 240)
    # Counted by comparing neighbouring answers; of 5,329 places 118 repeat an answer of their own conversation.
    histories = [json.loads(line)["history"] for line in path.read_text().splitlines()]
    answers = [history[1::2] for history in histories]
    equal = sum(a.strip() == b.strip() for own in answers for a, b in zip(own, own[1:], strict=False))
    longer = sum(len(a) > len(b) for own in answers for a, b in zip(own, own[1:], strict=False))
    distinct = sum(len({" ".join(answer.casefold().split()) for answer in own}) for own in answers)
    assert content["size"]["identical_pairs"] == equal == 92
    assert content["length_bias"]["longer_share"] == pytest.approx(longer / 4440)
    assert content["near_duplicates"]["responses"] == distinct
    assert content["languages"]["languages"][0]["share"] > 0.99
    assert artifact.report["limits_exceeded"] == 0
    assert len(content["groups"]) == 12 and len(content["samples"]) == 5
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    assert html.count("<img") == 3 and "<script" not in html
    for name in ("lengths.png", "turns.png", "groups.png"):
        with Image.open(artifact.path / name) as image:
            assert image.size[0] == 1080


@pytest.mark.slow
@needs_shared_data
def test_ultrafeedback_shows_its_length_bias(tmp_path: Path) -> None:
    _, content, markdown = report_of(tmp_path, SHARED / "ultrafeedback_subset" / "train_clean.jsonl.gz")
    rows = [json.loads(line) for line in gzip.open(SHARED / "ultrafeedback_subset" / "train_clean.jsonl.gz")]
    used = [(len(row["chosen"]), len(row["rejected"])) for row in rows]
    assert content["size"]["pairs"] == len(used) == 1000
    assert content["length_bias"]["longer_share"] == pytest.approx(sum(a > b for a, b in used) / len(used))
    assert content["length_bias"]["wilson"][0] > 0.5
    assert content["position"]["population"] == "ready pairs" and "The pairs came ready." in markdown

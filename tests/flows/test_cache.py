"""`coala cache` and `coala embed --explain`: what they show, what they refuse, and how they exit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from coala_core.embed import shard_worker
from coala_core.feature_cache import FeatureCache
from coala_core.storage import Artifact, open_artifact
from flows import console
from flows.cli import main
from tests.embedding import features, flip, same, tell

Coala = Callable[..., tuple[int, str, str]]


@pytest.fixture
def coala(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Coala:
    """Run a command with a store below the test's folder; status, output and errors, each in one line."""
    monkeypatch.setattr(console, "out", Console(width=400, highlight=False, soft_wrap=True, emoji=False))
    monkeypatch.setattr(shard_worker, "matmul_rate", lambda model: 1e9)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([*map(str, arguments), "--store", str(tmp_path / "store")])
        captured = capsys.readouterr()
        return status, " ".join(captured.out.split()), captured.err

    return run


@pytest.fixture
def told(tmp_path: Path) -> Artifact:
    return tell(tmp_path, range(4))


@pytest.fixture
def options(model: Path) -> list[object]:
    settings = ["layers=[2]", "shard_rows=6", "device=cpu", "dtype=float32"]
    return ["--model", model, *(part for setting in settings for part in ("--set", f"embed.{setting}"))]


@pytest.fixture
def made(coala: Coala, told: Artifact, options: list[object]) -> Artifact:
    """Two shards of six pairs, made by the command."""
    status, out, err = coala("embed", told.path, *options)
    assert status == 0, err
    return open_artifact(out, "embed")


def shard(tmp_path: Path) -> Path:
    return sorted(tmp_path.glob("store/features/*/shard-*.parquet"))[0]


def test_ls_of_nothing(coala: Coala, tmp_path: Path) -> None:
    status, out, _ = coala("cache", "ls")
    assert status == 0
    assert out.startswith(f"Features in {tmp_path / 'store' / 'features'}:")
    assert not (tmp_path / "store").exists()


def test_ls_names_spaces_settings_columns_and_sizes(coala: Coala, tmp_path: Path, made: Artifact) -> None:
    space = shard(tmp_path).parent.name
    status, out, _ = coala("cache", "ls")
    assert status == 0
    for part in (space, "llama", "dtype float32", "max_tokens 2048", "revision 1", "layer2_mean"):
        assert part in out
    size = sum(path.stat().st_size for path in shard(tmp_path).parent.iterdir())
    assert f" 2 12 {size / 1e6:.1f} " in f"{out} ", "two shards, twelve pairs, and their bytes"
    shard(tmp_path).with_suffix(".json").write_text("{")
    assert "1 broken" in coala("cache", "ls")[1]


def test_verify_exits_1_where_something_is_wrong_and_0_after_a_repair(
    coala: Coala, tmp_path: Path, told: Artifact, made: Artifact, options: list[object]
) -> None:
    space, cache = shard(tmp_path).parent.name, tmp_path / "store" / "features"
    assert coala("cache", "verify")[:2] == (0, f"0 problems in {cache}")
    flip(shard(tmp_path))
    status, out, _ = coala("cache", "verify", space)
    assert status == 1
    assert out.startswith(f"{space}/{shard(tmp_path).stem}: its Parquet file should match its sidecar and has SHA-256")
    assert out.endswith(f"1 problems in {cache}")
    assert coala("embed", told.path, *options)[0] == 0
    assert coala("cache", "verify")[0] == 0


def test_rm_of_a_space_keeps_artifacts(coala: Coala, tmp_path: Path, made: Artifact) -> None:
    before = features(made)
    space = shard(tmp_path).parent.name
    status, out, _ = coala("cache", "rm", space)
    assert status == 0
    assert out.startswith("1 spaces with 2 shards, ") and out.endswith(" MB, removed")
    assert FeatureCache(tmp_path / "store" / "features").spaces() == []
    assert open_artifact(made.path, "embed") == made
    assert same(before, features(made))


def test_rm_of_all_spaces(coala: Coala, told: Artifact, made: Artifact, options: list[object]) -> None:
    assert coala("embed", told.path, *options, "--set", "embed.max_tokens=64")[0] == 0
    assert coala("cache", "rm", "--all")[1].startswith("2 spaces with 4 shards, ")
    assert coala("cache", "rm", "--all")[1].startswith("0 spaces with 0 shards, ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rm"], "`coala cache rm` must be given a space or --all, got neither; `coala cache ls` names the spaces"),
        (["rm", "0123456789abcdef", "--all"], "must be given a space or --all, got both"),
        (["rm", "0123456789abcdef"], "got '0123456789abcdef'; choose from none, the cache is empty"),
        (["rm", "../.."], "got '../..'; choose from none, the cache is empty"),
        (["verify", "nowhere"], "must name a space of "),
        (["ls", "--set", "embed.cache=nonsense://x"], "got protocol 'nonsense'"),
        (["ls", "--set", "embed.caché=x"], "Extra inputs are not permitted"),
        (["nonsense"], 'Unknown command "nonsense"'),
    ],
    ids=" ".join,
)
def test_a_refusal_is_one_sentence_and_status_2(coala: Coala, arguments: list[str], sentence: str) -> None:
    status, out, err = coala("cache", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("coala: ") and err.count("\n") == 1
    assert sentence in err


def test_a_refused_rm_removes_nothing(coala: Coala, tmp_path: Path, made: Artifact) -> None:
    space = shard(tmp_path).parent.name
    for arguments in ([], [space, "--all"], [space[::-1]]):
        status, _, err = coala("cache", "rm", *arguments)
        assert status == 2
    assert f"choose from {space}" in err
    assert coala("cache", "verify")[:1] == (0,) and shard(tmp_path).exists()


def explain(coala: Coala, told: Artifact, options: list[object], *more: object) -> str:
    status, out, err = coala("embed", told.path, "--explain", *options, *more)
    assert (status, err) == (0, "")
    return out


def test_explain_before_anything_is_stored(coala: Coala, told: Artifact, options: list[object], tmp_path: Path) -> None:
    out = explain(coala, told, options)
    assert out.startswith("12 pairs, 12 different: 0 stored, 12 to embed.")
    assert "│ 12 │ no │ not embedded before │" in out
    assert not (tmp_path / "store" / "embed").exists()


def test_explain_when_all_is_stored(coala: Coala, told: Artifact, made: Artifact, options: list[object]) -> None:
    out = explain(coala, told, options)
    assert "12 stored, 0 to embed." in out
    assert "The artifact is finished and intact: the stage would reuse it whole." in out
    for name in sorted(path.stem for path in made.path.glob("shard-*")):
        assert f"│ 6 │ yes │ {name}, which holds 6 │" in out
    shutil.rmtree(made.path)
    out = explain(coala, told, options)
    assert "12 stored, 0 to embed." in out and "finished" not in out


def test_explain_when_part_is_stored(coala: Coala, tmp_path: Path, made: Artifact, options: list[object]) -> None:
    out = explain(coala, tell(tmp_path, [7, 0, 1], name="grown"), options)
    assert out.startswith("9 pairs, 9 different: 6 stored, 3 to embed.")
    assert "│ 3 │ no │ not embedded before │" in out and "│ 6 │ yes │ shard-" in out


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("layers=[2,3]", "stored without layer3_mean"),
        ("poolings=[mean,last]", "stored without layer2_last"),
        ("dtype=bfloat16", "stored with dtype float32 in place of bfloat16"),
        ("max_tokens=64", "stored with max_tokens 2048 in place of 64"),
    ],
)
def test_explain_names_what_is_different(
    coala: Coala, told: Artifact, made: Artifact, options: list[object], setting: str, reason: str
) -> None:
    out = explain(coala, told, options, "--set", f"embed.{setting}")
    assert "0 stored, 12 to embed." in out
    assert f"│ 12 │ no │ {reason} │" in out


def test_explain_names_damage(
    coala: Coala, told: Artifact, made: Artifact, options: list[object], tmp_path: Path
) -> None:
    flip(shard(tmp_path))
    out = explain(coala, told, options)
    assert "6 stored, 6 to embed." in out and "finished" not in out
    assert f"│ 6 │ no │ {shard(tmp_path).stem} is damaged: its Parquet file should match its sidecar" in out


def test_square_brackets_in_names_are_no_commands_to_the_terminal(
    coala: Coala, told: Artifact, model: Path, options: list[object], tmp_path: Path
) -> None:
    named, other = tmp_path / "[red]model", tmp_path / "other[bold]"
    for copy in (named, other):
        shutil.copytree(model, copy)
    (other / "generation_config.json").write_text('{"note": "another fingerprint"}')
    elsewhere = ("--set", f"embed.cache='{tmp_path}/[b]cache'", *options[2:])
    assert coala("embed", told.path, "--model", named, *elsewhere)[0] == 0
    out = coala("cache", "ls", *elsewhere)[1]
    assert "/[b]cache:" in out and " [red]model " in out
    out = explain(coala, told, ["--model", other], *elsewhere)
    assert "/[b]cache, space " in out
    assert "│ stored with model [red]model in place of other[bold] │" in out

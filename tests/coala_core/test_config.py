"""Refusals name every offence at once; defaults are usable; nothing changes after the check."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from coala_core.config import EmbedConfig, PipelineConfig, SolveConfig, SplitConfig, load_config, parse_config


def written(path: Path, text: str) -> Path:
    """Write a YAML file."""
    path.write_text(text, encoding="utf-8")
    return path


def test_every_offence_is_listed_with_its_name_and_value(tmp_path: Path) -> None:
    text = "solve: {gates: 0, tolerence: 0.1}\nembed: {poolings: [max]}\nstoer: x\nfinetune: {epochs: many}\n"
    with pytest.raises(ValueError) as refusal:
        load_config(written(tmp_path / "run.yaml", text), PipelineConfig)
    message = str(refusal.value)
    assert message.startswith(f"`{tmp_path / 'run.yaml'}` is not a valid configuration: ")
    offences = ("solve.gates", "(got 0)", "solve.tolerence", "embed.poolings.0", "(got 'max')", "stoer", "finetune")
    assert [offence for offence in offences if offence not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solve: [1", "must be YAML in UTF-8"),
        ("- solve", "must hold a mapping of sections, got list"),
        ("solve: 3", "solve: Input should be a valid dictionary"),
        ("split: {train: 0.9, validation: 0.2}", r"below 1 so that a test split remains, got 0\.9 \+ 0\.2"),
        ("solve: {path: [0.1, 0.2]}", r"must fall strictly and stay inside \(0, 1\), got \(0\.1, 0\.2\)"),
        ("solve: {path: [0.5, 0.5]}", "must fall strictly"),
        ("solve: {path: [1.0]}", "must fall strictly"),
        ("solve: {path: []}", "must fall strictly"),
        ("solve: {gates: 4, probe_gates: 5}", "`solve.probe_gates` must not exceed `solve.gates`, got 5 and 4"),
        ("embed: {layers: [3, 1, 3]}", r"`embed.layers` must not repeat itself, got \(3, 1, 3\); name each once"),
        ("embed: {layers: [2, 0]}", r"embed\.layers\.1: Input should be greater than or equal to 1 \(got 0\)"),
        ("embed: {poolings: [last, last]}", r"`embed.poolings` must not repeat itself, got \('last', 'last'\)"),
        ("embed: {poolings: []}", r"embed\.poolings: Tuple should have at least 1 item"),
        ("embed: {poolings: [mean+last]}", r"embed\.poolings\.0: Input should be 'mean' or 'last'"),
        ("embed: {layer: 3}", r"embed\.layer: Extra inputs are not permitted"),
        ("embed: {cache: ''}", r"embed\.cache: String should have at least 1 character"),
        ("embed: {executor: dask}", r"embed\.executor: Input should be 'local' or 'ray'"),
        ("embed: {workers: 0}", r"embed\.workers: Input should be greater than or equal to 1"),
        ("embed: {cpus_per_worker: 0}", r"embed\.cpus_per_worker: Input should be greater than 0"),
        ("embed: {gpus_per_worker: -0.5}", r"embed\.gpus_per_worker: Input should be greater than or equal to 0"),
        ("solve: {layer: 0}", r"solve\.layer: Input should be greater than or equal to 1"),
        ("solve: {pooling: max}", r"solve\.pooling: Input should be 'mean', 'last' or 'mean\+last'"),
        ("split: {seed: -1}", r"split\.seed: Input should be greater than or equal to 0 \(got -1\)"),
        ("finetune: {beta: .nan}", r"finetune\.beta"),
        ("finetune: {learning_rate: .inf}", r"finetune\.learning_rate"),
    ],
)
def test_bad_content_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(written(tmp_path / "run.yaml", text), PipelineConfig)


def test_files_that_are_none_or_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="needs a YAML file, got no file at .*gone.yaml"):
        load_config(tmp_path / "gone.yaml", PipelineConfig)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="must be YAML in UTF-8"):
        load_config(tmp_path / "binary.yaml", PipelineConfig)


def test_what_a_file_leaves_out_takes_its_default(tmp_path: Path) -> None:
    config = load_config(written(tmp_path / "run.yaml", "solve: {gates: 20}\n"), PipelineConfig)
    assert config == PipelineConfig(solve=SolveConfig(gates=20))
    assert load_config(written(tmp_path / "empty.yaml", ""), PipelineConfig) == PipelineConfig()


def test_a_file_can_hold_the_whole_configuration(tmp_path: Path) -> None:
    import yaml

    embed = EmbedConfig(layers=(7, 2), poolings=("last", "mean"), cache="s3://bucket/features", cpus_per_worker=0.5)
    config = PipelineConfig(split=SplitConfig(seed=3), embed=embed, solve=SolveConfig(layer=2, pooling="mean+last"))
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert load_config(written(tmp_path / "run.yaml", text), PipelineConfig) == config


def test_the_order_of_what_is_stored_stays() -> None:
    config = parse_config(
        {"embed": {"layers": [9, 4, 6], "poolings": ["last", "mean"]}}, PipelineConfig, source="here"
    ).embed
    assert (config.layers, config.poolings) == ((9, 4, 6), ("last", "mean"))


def test_a_checked_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PipelineConfig().solve.gates = 3  # type: ignore[misc]


def test_the_source_is_named() -> None:
    with pytest.raises(ValueError, match="`the command line` is not a valid configuration: split.train"):
        parse_config({"split": {"train": 0}}, PipelineConfig, source="the command line")


def test_an_address_with_credentials_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="must not hold credentials") as refused:
        parse_config({"embed": {"cache": "s3://key:secret@bucket/features"}}, PipelineConfig, source="test")
    assert "secret" not in str(refused.value)
    assert EmbedConfig(cache="s3://bucket/features").cache == "s3://bucket/features"

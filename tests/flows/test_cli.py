"""The command line: refusals, precedence, and stages chained by the folders that they print."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coala_core.storage import Artifact, Store, open_artifact
from flows.cli import configure, main
from tests.flows.conftest import clean_environment, run_coala, start_coala
from tests.lessons import lesson, write_lessons

COMMANDS = ("run", "triplets", "split", "quality", "embed", "solve", "finetune", "evaluate", "doctor", "replay")
QUICK_SOLVE = ("--set", "solve.gates=6", "--set", "solve.probe_gates=2", "--set", "solve.path=[0.4, 0.1]")
QUICK_SHARES = ("--set", "split.train=0.6", "--set", "split.validation=0.2")


def artifact(store: Path, stage: str) -> Artifact:
    """A sealed artifact that claims to be of a stage."""
    shelf = Store(store)
    workspace = shelf.workspace(stage, "0123")
    workspace.write_json("content.json", [1])
    return shelf.seal(workspace, stage, "0123", {}, {}, 0.0)


def test_help_is_quick_and_loads_no_heavy_package() -> None:
    code = (
        "import sys, time\n"
        "from flows.cli import main\n"
        "status = main(['--help'])\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'transformers', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.stderr.write(f'{status} {sorted(heavy)} {time.process_time():.2f}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True)
    status, heavy, seconds = done.stderr.split(" ")
    assert (status, heavy) == ("0", "[]")
    assert float(seconds) < 3  # processor time, as other processes may keep the machine busy
    assert [command for command in COMMANDS if command not in done.stdout] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["triplets", "--set", "solve.gatez=3"], "solve.gatez: Extra inputs are not permitted (got 3)"),
        (["triplets", "--set", "solve.gates=0"], "solve.gates: Input should be greater than or equal to 1 (got 0)"),
        (["triplets", "--set", "solve.gates"], "`--set` must be SECTION.NAME=VALUE, got 'solve.gates'"),
        (["triplets", "--set", "=3"], "`--set` must be SECTION.NAME=VALUE, got '=3'"),
        (["triplets", "--set", "solve.path=[0.5"], "`--set solve.path=[0.5` must have a YAML value"),
        (["triplets", "--set", "solve=1", "--set", "solve.gates=2"], "`solve` must be a section with settings, got 1"),
        (["triplets", "--set", "split.train=0.9", "--set", "split.validation=0.3"], "got 0.9 + 0.3; lower one of them"),
        (["triplets", "--conversations", "/nowhere/a.jsonl"], "must name an existing file, got '/nowhere/a.jsonl'"),
        (["triplets", "--config", "/nowhere/a.yaml"], "needs a YAML file, got no file at `/nowhere/a.yaml`"),
        (["triplets", "--conversations", "."], "must lead to at least one file that ends in one of"),
        (["triplets", "--store", "/dev/null/store"], "Not a directory: '/dev/null/store"),
        (["triplets", "--nonsense", "1"], "Unknown option: --nonsense"),
        (["triplets", "--group-by", "colour"], "group field missing"),
        (["split"], "requires an argument"),
        (["split", "/nowhere"], "`/nowhere` must be the folder of a finished triplets artifact, got no manifest.json"),
        (["split", ".", "--seed", "x"], 'unable to convert "x" into int'),
        (["run", "--seed", "-1"], "split.seed: Input should be greater than or equal to 0 (got -1)"),
        (["nonsense"], 'Unknown command "nonsense"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_refusal_is_one_sentence_and_status_2(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("coala: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


def test_several_offences_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["triplets", "--set", "solve.gates=0", "--set", "embed.poolings=[max]", "--set", "stoer=x"]) == 2
    error = capsys.readouterr().err
    assert [name for name in ("solve.gates", "embed.poolings.0", "stoer") if name not in error] == []


def test_a_file_without_usable_rows_is_refused_with_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["not JSON", json.dumps({"utterances": []}), json.dumps({"text": "x"}), json.dumps({"text": "y"})]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    assert main(["triplets", "--conversations", str(path), "--store", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert "got none of 4 (2 unknown layout, 1 not JSON, 1 empty; first, row 1 of rows.jsonl:" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "given", "wanted"),
    [
        (["split"], ["split"], "triplets"),
        (["embed"], ["solve"], "triplets"),
        (["solve"], ["split", "embed"], "embed"),
        (["finetune"], ["evaluate"], "solve"),
        (["evaluate"], ["solve"], "finetune"),
    ],
)
def test_a_folder_of_another_stage_is_refused(
    command: list[str], given: list[str], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(artifact(tmp_path, stage).path) for stage in given]
    assert main([*command, *folders]) == 2
    error = capsys.readouterr().err
    assert f"must be a {wanted} artifact, got {given[0]}; give the {wanted} folder" in error
    assert folders[0] in error


def test_a_damaged_input_is_refused_with_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = artifact(tmp_path, "triplets")
    (made.path / "content.json").write_text("[2]")
    assert main(["split", str(made.path)]) == 2
    error = capsys.readouterr().err
    assert "content.json` must have SHA-256" in error
    assert "run the stage again" in error


def test_yaml_then_options_then_set(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("store: from-file\nsplit: {seed: 1, train: 0.5}\nsolve: {gates: 20}\nembed: {model: file}\n")
    config = configure(path, ["split.seed=3", "solve.tolerance=1e-4"], split__seed=2, embed__model="option", store=None)
    assert (config.split.seed, config.split.train) == (3, 0.5)
    assert (config.embed.model, config.store) == ("option", "from-file")
    assert (config.solve.gates, config.solve.tolerance) == (20, 1e-4)
    assert configure(path, [], split__seed=2).split.seed == 2
    assert configure(None, []).split.seed == 0


@pytest.mark.parametrize(
    ("setting", "section", "name", "value"),
    [
        ("embed.cache=null", "embed", "cache", None),
        ("embed.layers=[9, 4]", "embed", "layers", (9, 4)),
        ("solve.pooling=mean+last", "solve", "pooling", "mean+last"),
        ("solve.path=[0.3, 0.1]", "solve", "path", (0.3, 0.1)),
        ("triplets.conversations=a=b.jsonl", "triplets", "conversations", "a=b.jsonl"),
        ("embed.model='2024'", "embed", "model", "2024"),
    ],
)
def test_set_takes_yaml_values(setting: str, section: str, name: str, value: object) -> None:
    assert getattr(getattr(configure(None, [setting]), section), name) == value


def test_stages_chain_on_the_folders_that_they_print(
    lessons: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Signs that a terminal library could take for markup or an emoji, and a path longer than a line.
    store = tmp_path / "[red] :bug: store" / ("x" * 120)

    def stage(*arguments: object) -> Path:
        assert main([*map(str, arguments), "--store", str(store)]) == 0
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 1
        assert arguments[0] in captured.err
        return Path(captured.out.removesuffix("\n"))

    triplets = stage("triplets", "--conversations", lessons)
    split = stage("split", triplets, *QUICK_SHARES)
    quality = stage("quality", triplets, split)
    embed = stage("embed", triplets, "--model", model, "--set", "embed.layers=[2]")
    solve = stage("solve", embed, split, *QUICK_SOLVE)
    finetune = stage("finetune", solve, "--set", "finetune.epochs=5")
    evaluate = stage("evaluate", finetune, "--set", "evaluate.resamples=100")
    names = ["triplets", "split", "quality", "embed", "solve", "finetune", "evaluate"]
    for name, folder in zip(names, [triplets, split, quality, embed, solve, finetune, evaluate], strict=True):
        assert folder.is_relative_to(store)
        assert open_artifact(folder).stage == name
    before = (embed / "timing.json").read_bytes()
    assert stage("embed", triplets, "--model", model, "--set", "embed.layers=[2]") == embed
    assert (embed / "timing.json").read_bytes() == before
    stage("evaluate", stage("finetune", solve, "--set", "finetune.epochs=6"), "--set", "evaluate.resamples=100")
    assert main(["compare", "--store", str(store)]) == 0  # the newest two, which are all
    table = capsys.readouterr().out
    assert "heads on the same test pairs, beside the first" in table
    assert re.search(r"[+-]\d\.\d{3}", table)  # the lead of the second


def test_rejects_are_beside_the_triplets_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(lesson(0))}\n{{broken\n{json.dumps(lesson(1))}\n[1]\n")
    assert main(["triplets", "--conversations", str(path), "--store", str(tmp_path / "store")]) == 0
    captured = capsys.readouterr()
    rejects = (Path(captured.out.strip()) / "rejects.jsonl").read_text().splitlines()
    found = [(r["source"], r["row"], r["fault"]) for r in map(json.loads, rejects)]
    assert found == [("rows.jsonl", 2, "not JSON"), ("rows.jsonl", 4, "not an object")]
    assert "rows_rejected" in captured.err


def test_telemetry_is_off_unless_the_user_decided() -> None:
    code = "import os, json; from flows.cli import main; main(['--version']); print(json.dumps(dict(os.environ)))"
    names = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY")
    environment = {name: value for name, value in clean_environment().items() if name not in names}
    environment["MLFLOW_DISABLE_TELEMETRY"] = "false"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert (found["DO_NOT_TRACK"], found["HF_HUB_DISABLE_TELEMETRY"]) == ("1", "1")
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_comparing_without_evaluations_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--store", str(tmp_path)]) == 2
    assert "`compare` needs two evaluations of the same test pairs or more, got 0; " in capsys.readouterr().err


def test_replay_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "0 runs delivered, 0 still waiting.\n"


def run_arguments(store: Path, lessons: Path, model: Path) -> list[object]:
    """`coala run` with quick settings."""
    quick = ("--set", "finetune.epochs=5", "--set", "evaluate.resamples=100", "--set", "embed.layers=[2]")
    named = ("--store", store, "--conversations", lessons, "--model", model)
    return ["run", *named, *quick, *QUICK_SOLVE, *QUICK_SHARES]


@pytest.mark.slow
def test_the_whole_flow_runs_without_a_server(
    make_store: Callable[[str], Path], lessons: Path, model: Path, tmp_path: Path
) -> None:
    store, home = make_store("my store"), tmp_path / "prefect home"
    outcome = run_coala(*run_arguments(store, lessons, model), PREFECT_HOME=str(home))
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert "lessons.jsonl, llama, seed 0" in lines[0]
    for text in ("held-out accuracy", "certified gap, Phase I", "linear probe, same features", "seconds, embed"):
        assert any(text in line for line in lines), text
    results = Path(lines[lines.index("Results:") + 1].strip())
    assert open_artifact(results, "evaluate").path.is_relative_to(store)
    assert f"PREFECT_HOME='{home}'" in outcome.out
    assert f"--backend-store-uri 'sqlite:///{store}/mlflow/mlflow.db'" in outcome.out
    assert "Traceback" not in outcome.err
    assert (home / "prefect.db").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my store", "prefect home"]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_refused_run_on_a_server_shows_its_sentence(
    make_store: Callable[[str], Path], model: Path, tmp_path: Path
) -> None:
    from prefect.settings import get_current_settings

    store = make_store("store")
    few = write_lessons(tmp_path / "few.jsonl", 2)
    environment = {"PREFECT_API_URL": str(get_current_settings().api.url), "PREFECT_HOME": str(tmp_path / "prefect")}
    outcome = run_coala(*run_arguments(store, few, model), **environment)
    assert outcome.status == 2
    sentences = [line for line in outcome.err.splitlines() if line.startswith("coala: ")]
    assert len(sentences) == 1
    assert sentences[0].startswith("coala: `split_table` needs pairs in every split, got none in ")


@pytest.mark.slow
@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_is_one_sentence_and_the_same_command_goes_on(tmp_path: Path) -> None:
    many = write_lessons(tmp_path / "many.jsonl", 6000)
    arguments = ["triplets", "--conversations", many, "--store", tmp_path / "store"]
    with start_coala(arguments) as process:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "store").glob("triplets/*.partial")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "coala: interrupted; the same command continues from what is stored"
    assert "Traceback" not in err
    outcome = run_coala(*arguments)
    assert outcome.status == 0
    assert open_artifact(outcome.out.strip()).report["conversations"] == 6000
    assert list((tmp_path / "store" / "triplets").iterdir()) == [Path(outcome.out.strip())]

"""What the sources may not do: start shells, run text as code, read YAML that makes objects, unpickle, trust models."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("coala_core", "tasks", "flows") for path in (ROOT / folder).rglob("*.py"))
SCRIPTS = sorted(path for path in (ROOT / ".ci").glob("*") if path.is_file())

RUNS_TEXT = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn", "subprocess.getoutput"}
MAKES_OBJECTS = {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "pickle.load", "pickle.loads"}
LOADS_ANYTHING = {"torch.load", "joblib.load", "numpy.load", "np.load", "dill.load", "cloudpickle.load", "shelve.open"}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def faults(source: str) -> list[str]:
    """Calls of a text of Python that are not allowed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        found += [name] if name in RUNS_TEXT | MAKES_OBJECTS | LOADS_ANYTHING else []
        found += [f"{name}(shell=...)"] if given.get("shell", "False") != "False" else []
        found += [f"{name}(trust_remote_code=...)"] if given.get("trust_remote_code", "False") != "False" else []
        found += [f"{name}(allow_pickle=...)"] if given.get("allow_pickle", "False") != "False" else []
        loads = name.endswith(".from_pretrained")
        found += [f"{name} without trust_remote_code=False"] if loads and "trust_remote_code" not in given else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_does_what_is_not_allowed(path: Path) -> None:
    allowed = {
        # The built-in model's own file, whose digest is known, and which holds no code that could be trusted.
        "coala_core/embed/model_source.py": {
            "AutoModelForCausalLM.from_pretrained without trust_remote_code=False",
            "AutoTokenizer.from_pretrained without trust_remote_code=False",
        },
        # In a module of its own, a function that happens to be called so.
    }.get(str(path.relative_to(ROOT)), set())
    assert set(faults(path.read_text(encoding="utf-8"))) - allowed == set()


@pytest.mark.parametrize(
    "path", [path for path in SCRIPTS if path.read_bytes().startswith(b"#!/usr/bin/env python3")], ids=str
)
def test_no_script_does_either(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "subprocess.run(x, shell=True)",
        "subprocess.run(x, shell=flag)",
        "yaml.load(x)",
        "torch.load(x, weights_only=True)",
        "np.load(x, allow_pickle=True)",
        "AutoModel.from_pretrained(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=config.trust)",
    ],
)
def test_each_of_these_is_noticed(source: str) -> None:
    assert faults(source) != []


def test_yaml_is_read_safely(tmp_path: Path) -> None:
    from coala_core.config import PipelineConfig, load_config

    hostile = tmp_path / "run.yaml"
    hostile.write_text(f"store: !!python/object/apply:pathlib.Path.touch [{tmp_path}/made]\n")
    with pytest.raises(ValueError, match="must be YAML in UTF-8, got .*python/object"):
        load_config(hostile, PipelineConfig)
    assert not (tmp_path / "made").exists()

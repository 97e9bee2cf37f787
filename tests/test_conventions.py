"""Rules of the code base that no other tool checks, read from the sources themselves."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from coala_core import config as configuration
from coala_core.config import DataConfig, GenerationConfig, PipelineConfig, RecordedConfig, StageConfig, SweepConfig

ROOT = Path(__file__).parents[1]
PACKAGES = ("coala_core", "tasks", "flows")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
ALLOWED = {"coala_core": {"coala_core"}, "tasks": {"coala_core", "tasks"}, "flows": {"coala_core", "tasks", "flows"}}
CVXNN_MAY_IMPORT = {
    "numpy",
    "scipy",
    "coala_core.cvxnn",
    "coala_core.config",
    "coala_core.backend",
    "coala_core.progress",
    "coala_core.scratch",
}
LONGEST_FILE = 350


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def below(module: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return module == package or module.startswith(f"{package}.")


def sources(*packages: str) -> Iterator[tuple[str, Path]]:
    """Files of some packages with their names in the repository."""
    for path in FILES:
        name = path.relative_to(ROOT)
        if name.parts[0] in (packages or PACKAGES):
            yield str(name), path


def test_the_sources_are_found() -> None:
    assert {name.split("/")[0] for name, _ in sources()} == set(PACKAGES)
    assert len(FILES) > 40


def test_layers_import_downwards_only() -> None:
    ours = (*PACKAGES, "tests")
    assert [
        f"{name} imports {module}"
        for name, path in sources()
        for module in imports(path)
        if (top := module.split(".")[0]) in ours and top not in ALLOWED[name.split("/")[0]]
    ] == []


@pytest.mark.parametrize(
    ("foreign", "homes"),
    [
        ("cupy", ("coala_core/backend.py",)),
        ("cupyx", ("coala_core/backend.py",)),
        (
            "mlflow",
            (
                "tasks/tracking.py",
                "tasks/logged_model.py",
                "tasks/served_head.py",
                "tasks/registry.py",
                "tasks/promotion.py",
                "tasks/protected.py",
            ),
        ),
        ("prefect", ("tasks/", "flows/")),
        ("fsspec", ("coala_core/feature_cache/remote_files.py", "coala_core/sources/remote.py")),
        ("openai", ("coala_core/generate/endpoint.py",)),
        ("ray", ("coala_core/executors/ray.py",)),
    ],
)
def test_a_foreign_package_has_one_home(foreign: str, homes: tuple[str, ...]) -> None:
    users = {name for name, path in sources() if any(below(module, foreign) for module in imports(path))}
    assert [name for name in users if not name.startswith(homes)] == []


def test_the_convex_network_needs_numbers_only() -> None:
    assert [
        f"{name} imports {module}"
        for name, path in sources("coala_core")
        if name.startswith("coala_core/cvxnn/")
        for module in imports(path)
        if module.split(".")[0] not in sys.stdlib_module_names
        and not any(below(module, allowed) for allowed in CVXNN_MAY_IMPORT)
    ] == []


def test_nothing_can_run_foreign_code() -> None:
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    loaders = {"torch.load", "eval", "exec", "yaml.load", "yaml.unsafe_load", "numpy.load", "np.load"}
    switches = [("trust_remote_code", True), ("allow_pickle", True), ("shell", True)]
    for name, path in sources():
        assert not {module.split(".")[0] for module in imports(path)} & pickles, name
        for called, call in calls(path):
            given = [(keyword.arg, getattr(keyword.value, "value", None)) for keyword in call.keywords]
            assert called not in loaders and not [g for g in given if g in switches], f"{name}: {ast.unparse(call)}"


def test_the_core_never_prints() -> None:
    writers = {"print", "sys.stdout.write", "sys.stderr.write"}
    assert [name for name, path in sources("coala_core") if writers & {called for called, _ in calls(path)}] == []


def test_files_stay_short() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_public_names_have_docstrings() -> None:
    lacking = []
    for name, path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lacking += [name] if tree.body and not ast.get_docstring(tree) else []
        lacking += [f"{name}: {public}" for public, node in public_definitions(tree) if not ast.get_docstring(node)]
    assert lacking == []


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Functions, classes and methods without a leading underscore; what lies in functions is private."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{prefix}{node.name}.")


CONFIGS = [
    value
    for value in vars(configuration).values()
    if inspect.isclass(value) and issubclass(value, StageConfig) and value is not StageConfig
]


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every field of every configuration."""
    for model in CONFIGS:
        for name, field in model.model_fields.items():
            yield f"{model.__name__}.{name}", field


def test_the_sections_of_runs_are_all_configurations() -> None:
    runs = {PipelineConfig, GenerationConfig, SweepConfig}
    values = [value for run in runs for value in vars(run()).values()]
    sections = {type(value) for value in values if isinstance(value, StageConfig)}
    assert sections | runs | {DataConfig, RecordedConfig} == set(CONFIGS)


def test_every_setting_is_described() -> None:
    assert [name for name, field in fields() if not (field.description or "").endswith(".")] == []


def test_every_number_is_bounded() -> None:
    numbers = {name: field for name, field in fields() if {int, float} & {field.annotation, *alternatives(field)}}
    assert len(numbers) > 25
    assert [name for name, field in numbers.items() if not {Ge, Gt, Le, Lt} & set(map(type, field.metadata))] == []


def alternatives(field: FieldInfo) -> tuple[object, ...]:
    """Members of a union such as `int | None`; nothing for other types."""
    return typing.get_args(field.annotation) if typing.get_origin(field.annotation) is types.UnionType else ()


def test_every_stage_has_the_same_door() -> None:
    for stage in ("generate", "triplets", "split", "quality", "embed", "solve", "finetune", "evaluate"):
        module: types.ModuleType = importlib.import_module(f"coala_core.stages.{stage}")
        assert stage == module.STAGE
        planned, run = (list(inspect.signature(f).parameters) for f in (module.plan, module.run))
        assert run == [*planned, "progress"]
        assert planned[:2] == ["store", "config"]
        assert isinstance(module.REVISION, int)

"""The structure of the package: the order of imports, no circles, no modules for everything."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    ("errors", "arrays", "progress"),
    ("extras", "files"),
    ("config",),
    ("data",),
    ("evaluation",),
    ("launch",),
    ("training",),
    ("display",),
    ("run_folder",),
    ("audit",),
    ("starting",),
    ("delivery",),
    ("runs",),
    ("comparison",),
    ("tuning",),
    ("cli",),
    ("__main__",),
)
"""Files and folders of trainer/; each imports from itself and from those before it. Those of one
tuple do not import each other. `trainer/__init__.py` is the public API and may import all."""
LAYER = {name: place for place, names in enumerate(ORDER) for name in names}


def module_name(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


PATHS = {module_name(path): path for path in sorted((ROOT / "trainer").rglob("*.py"))}


def imported(path):
    """Modules of ours that a file imports anywhere, also within functions and for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in PATHS else node.module for name in names)
    return {name for name in found if name in PATHS}


IMPORTS = {name: imported(path) for name, path in PATHS.items()}
"""{module: modules that it imports}, but for the version, which stands in trainer/__init__.py."""


def layer(module):
    return LAYER[module.split(".")[1]]


def test_every_folder_and_file_has_its_place_in_the_order():
    there = {path.stem for path in (ROOT / "trainer").iterdir() if path.suffix in ("", ".py")}
    assert there - {"__init__", "__pycache__"} == set(LAYER)


def test_imports_point_one_way():
    wrong = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in names - {"trainer"}
        if module != "trainer" and (layer(name) > layer(module) or name == "trainer.cli")
        if not module.endswith("__main__")
    ]
    assert wrong == []


def test_modules_take_nothing_but_the_version_from_the_public_api():
    lines = [
        line.strip()
        for name, path in PATHS.items()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith("from trainer import")
    ]
    assert set(lines) == {"from trainer import __version__"}


def test_no_modules_import_each_other_however_far_the_way():
    done = set()

    def visit(module, way):
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for name in IMPORTS[module] - {"trainer"}:
                visit(name, [*way, module])
            done.add(module)

    for module in PATHS:
        if module != "trainer":
            visit(module, [])


def test_the_test_of_circles_finds_one(monkeypatch):
    first, second = next(pair for pair in pairwise(PATHS) if "trainer" not in pair)
    monkeypatch.setitem(IMPORTS, first, {second})
    monkeypatch.setitem(IMPORTS, second, {first})
    with pytest.raises(AssertionError, match=" -> "):
        test_no_modules_import_each_other_however_far_the_way()


@pytest.mark.parametrize(
    "name", ["cli", "config", "data", "evaluation", "files", "errors", "arrays"]
)
def test_what_needs_no_model_imports_no_torch(name):
    heavy = ("torch", "transformers", "accelerate", "peft")
    wrong = []
    for module, path in PATHS.items():
        if module.split(".")[1:2] == [name]:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                wrong += [f"{module}: {each}" for each in names if each.split(".")[0] in heavy]
    assert wrong == []


@pytest.mark.parametrize(
    "name", ["training.losses.one_label", "evaluation.metrics", "evaluation.scores"]
)
def test_losses_and_metrics_import_nothing_of_ours_but_evaluation(name):
    allowed = ("trainer.errors", "trainer.arrays", "trainer.evaluation")
    assert [each for each in IMPORTS[f"trainer.{name}"] if not each.startswith(allowed)] == []


def test_no_module_is_a_drawer_for_everything():
    drawers = {"utils", "common", "base", "helpers", "misc"}
    assert not drawers & {path.stem for path in PATHS.values()}

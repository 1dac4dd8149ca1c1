"""The private names of libraries that the package uses: all exist, and all are listed."""

import ast
import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

from private_names import OVERRIDDEN, PRIVATE_NAMES

LIBRARIES = ("transformers", "accelerate", "peft", "torch", "datasets", "tokenizers", "numpy")
STANDARD = ("os._exit", "sys._current_frames")
"""Documented functions of Python."""
ACCESSORS = ("getattr", "setattr", "hasattr", "delattr")
TREES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(Path("trainer").rglob("*.py"))}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def mentioned(kind):
    """The names that the functions of a class and its parents read or set."""
    found = set()
    for each in (value for parent in kind.__mro__ for value in vars(parent).values()):
        each = getattr(each, "fget", None) or getattr(each, "func", each)
        function = inspect.unwrap(getattr(each, "__func__", each))
        found |= set(function.__code__.co_names) if inspect.isfunction(function) else set()
    return found


def fault(listed):
    """What is wrong with a listed name in the installed libraries, or None."""
    try:
        owner = resolve_name(listed.owner)
    except (ImportError, AttributeError) as error:
        return f"{error}"
    if inspect.ismodule(owner) and listed.name in listed.owner:
        return None  # a private module, which could be imported
    if not hasattr(owner, listed.name):
        has_instances = inspect.isclass(owner) and listed.name in mentioned(owner)
        return None if has_instances else "is gone"
    found = getattr(owner, listed.name)
    if listed.parameters is None:
        return None
    parameters = tuple(inspect.signature(found).parameters)
    return None if parameters == listed.parameters else f"takes {', '.join(parameters)}"


def own_names(tree):
    """The names that a file defines, and the attributes that it sets on self."""
    own = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return own


def names_in(node, own, everywhere):
    """The names of a node that may belong to a library."""
    if isinstance(node, ast.Attribute) and ast.unparse(node) not in STANDARD:
        known = everywhere if ast.unparse(node.value) in ("self", "super()") else own
        return {node.attr} - known
    if isinstance(node, ast.ImportFrom) and not node.module.startswith("trainer"):
        return {*node.module.split("."), *(alias.name for alias in node.names)}
    if isinstance(node, ast.Import):
        return {part for alias in node.names for part in alias.name.split(".")}
    if isinstance(node, ast.keyword) and node.arg:
        return {node.arg} - everywhere
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ACCESSORS:
        given = node.args[1] if len(node.args) > 1 else None
        return {given.value} if isinstance(given, ast.Constant) else set()
    return set()


def used_names():
    """{name: places} of private names in the sources that belong to a library."""
    own = {path: own_names(tree) for path, tree in TREES.items()}
    everywhere, places = set().union(*own.values()), {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            for name in filter(is_private, names_in(node, own[path], everywhere)):
                places.setdefault(name, []).append(f"{path}:{node.lineno}")
    return places


def inherited_names():
    """{name: places} of private names of a library that our classes define, set or read."""
    places = {}
    for path, tree in TREES.items():
        kinds = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
        if not any(library in path.read_text("utf-8") for library in LIBRARIES):
            continue
        for node in kinds:
            kind = getattr(import_module(".".join(path.with_suffix("").parts)), node.name)
            parents = [k for k in kind.__mro__ if k.__module__.split(".")[0] in LIBRARIES]
            if not parents:
                continue
            names = {each.name for each in node.body if isinstance(each, ast.FunctionDef)} | {
                each.attr
                for each in ast.walk(node)
                if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self"
            }
            theirs = mentioned(parents[0]).union(*map(dir, parents))
            for name in filter(is_private, names & theirs):
                places.setdefault(name, []).append(f"{path}: {node.name}")
    return places


def test_the_installed_libraries_have_every_private_name_that_is_listed():
    faults = [
        f"{each.owner}.{each.name} {found}; needed: {each.why}"
        for each in PRIVATE_NAMES
        if (found := fault(each))
    ]
    assert faults == []


def test_no_private_name_of_a_library_is_used_that_is_not_listed():
    listed = {each.name for each in PRIVATE_NAMES}
    used, inherited = used_names(), inherited_names()
    missing = {name: places for name, places in (used | inherited).items() if name not in listed}
    assert missing == {}, "add them to tests/private_names.py, or use a public name"
    assert listed - set(used) - set(inherited) == set(), "listed, but not used any more"
    assert {each.name for each in OVERRIDDEN} <= set(inherited)

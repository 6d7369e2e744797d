"""Every public name of the API page says the types of its arguments and of its result; `make lint` checks that they hold."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def public(page):
    """The functions and classes that a page of autodoc's directives shows, as (module, name)."""
    for kind, target, members in re.findall(r"^\.\. auto(\w+):: ([\w.]+)(?:\(\))?\n(?:   :members:(.*)\n)?", page, re.M):
        if kind != "module":
            yield tuple(target.rsplit(".", 1))
            continue
        module = importlib.import_module(target)
        own = [name for name, item in vars(module).items() if getattr(item, "__module__", "") == target and name[0] != "_"]
        named = [name.strip() for name in members.split(",") if name.strip()]
        if f"{target}\n   :members:" in page:
            yield from ((target, name) for name in named or getattr(module, "__all__", own))


def functions(module, name):
    """The function of this name, or the methods and properties of the class that a caller meets."""
    item = getattr(importlib.import_module(module), name)
    if not inspect.isclass(item):
        return {name: item}
    found = {f"{name}.{key}": inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
             for parent in item.__mro__ if parent.__module__.startswith("deeplinear")
             for key, member in vars(parent).items() if key in ("__init__", "__call__") or key[0] != "_"}
    return {key: member for key, member in found.items() if inspect.isfunction(member) and
            member.__module__.startswith("deeplinear")}


def without_types(function):
    """The arguments that have no annotation, and "return" where the result has none."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.annotation is p.empty and p.name not in ("self", "cls")] + [
        "return" for _ in range("return" not in function.__annotations__)]


NAMES = list(public((ROOT / "book" / "api.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("module, name", NAMES, ids=lambda part: part.removeprefix("deeplinear."))
def test_a_public_name_says_its_types(module, name):
    for each, function in functions(module, name).items():
        assert not without_types(function), each


def test_the_names_are_those_of_the_page_and_a_missing_type_is_found():
    assert {("deeplinear.chain", "end_to_end"), ("deeplinear.plots", "Figure"), ("deeplinear.descent", "Trajectory"),
            ("deeplinear.losses", "LpLoss"), ("deeplinear.convnet", "ConvNet")} <= set(NAMES) and len(NAMES) > 100
    assert {"LpLoss.__init__", "LpLoss.shape", "LpLoss.value"} <= set(functions("deeplinear.losses", "LpLoss"))
    assert "AdaGrad.pytorch" in functions("deeplinear.optimizers", "AdaGrad")
    assert without_types(lambda a, *, b: a) == ["a", "b", "return"]

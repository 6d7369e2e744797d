"""What version 1.0.0 documented is there today, with its parameters in their places, or the changelog says what became of it."""

import importlib
import inspect
import re
from functools import reduce
from pathlib import Path

import pytest
import yaml

BEFORE = {f"{module}.{name}": parameters for module, names in
          yaml.safe_load((Path(__file__).parent / "names_1_0.yml").read_text(encoding="utf-8")).items()
          for name, parameters in names.items()}
CHANGELOG = (Path(__file__).parents[1] / "book" / "changelog.md").read_text(encoding="utf-8")
SAID = set(re.findall(r"^- `([\w.]+)", CHANGELOG.partition("### Changed names")[2].partition("\n#")[0], re.M))


def found(name):
    """The object of a name like ``descent.Trajectory.resumed``."""
    module, *rest = name.split(".")
    root = importlib.import_module("deeplinear" if module == "deeplinear" else f"deeplinear.{module}")
    return reduce(getattr, rest, root)


def kept(name, parameters):
    """Whether a name is there and takes the parameters of before in their places, and asks for no other."""
    try:
        thing = found(name)
    except AttributeError:
        return False
    if not parameters:
        return True
    now = [each for each in inspect.signature(thing).parameters.values() if each.name != "self"]
    asked = [each.name for each in now[len(parameters):] if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    return [each.name for each in now[:len(parameters)]] == parameters and not asked


def test_every_name_of_before_is_kept_or_the_changelog_names_it():
    assert len(BEFORE) > 190
    assert {name for name, parameters in BEFORE.items() if not kept(name, parameters)} == SAID


@pytest.mark.parametrize("name, parameters, holds", [
    ("deeplinear.train", [], True), ("deeplinear.no_such_name", [], False), ("checks.check", ["label", "value", "below"], True),
    ("checks.check", ["value", "label"], False), ("checks.check", ["label"], False), ("descent.Trajectory.nothing", [], False)])
def test_a_changed_name_is_found(name, parameters, holds):
    assert kept(name, parameters) is holds

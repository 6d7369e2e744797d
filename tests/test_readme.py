"""The README fits a screen, says what each folder is for, and names statements, commands and pages that exist."""

import re
import subprocess
from pathlib import Path

import pytest

from test_notebooks import CLAIMS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "book" / "running.md").read_text(encoding="utf-8").partition("## Commands")[2].partition("\n## ")[0]


def folders():
    """The tracked folders of the root; those of the working tree where there is no repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    return {name.split("/")[0] for name in listed if "/" in name} or {path.name for path in ROOT.iterdir() if path.is_dir()}


def test_it_fits_a_screen():
    assert len(README.splitlines()) <= 45 and len(README) < 4500


def test_its_end_says_what_every_folder_is_for():
    end = README.rstrip().rpartition("\n\n")[2]
    assert [name for name in sorted(folders()) if f"`{name}`" not in end] == []


def test_its_statements_are_proved_here():
    """A label that the README names is a row of the ledger that extends the papers, or one that a record holds."""
    named = set(re.findall(r"`((?:thm|prop|emp)-[\w-]+)`", README))
    rows = {claim["id"]: claim for claim in CLAIMS}
    assert len(named) >= 3 and named <= rows.keys()
    assert all(rows[name]["kind"] == "extension" or "record" in rows[name] for name in named)


def rows_of_the_map():
    """For each statement with a row on the map of the theorems the statements that it rests on."""
    table = (ROOT / "book" / "map.md").read_text(encoding="utf-8")
    cells = (row.split("|")[1:3] for row in table.splitlines() if row.startswith("| {prf:ref}"))
    return {re.findall("`(.*?)`", first)[0]: re.findall("`(.*?)`", rests) for first, rests in cells}


def test_its_theorems_are_on_the_map_and_so_are_those_that_the_map_rests_on():
    rows = rows_of_the_map()
    theorems = {name for name in re.findall(r"`(thm-[\w-]+)`", README)}
    theorems |= {name for rests in rows.values() for name in rests if name.startswith("thm-")}
    assert theorems - rows.keys() == set()


@pytest.mark.parametrize("text", [README, COMMANDS], ids=["README", "running"])
def test_its_commands_exist(text):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"`make (\w+)", text)) <= set(re.findall(r"^(\w+):", makefile, re.M))


def test_every_command_is_explained():
    summary = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\n\n")[0]
    offered = set(re.findall(r"(?:#|  ) make (\w+)  ?", summary))
    assert len(offered) > 15 and {name for name in offered if f"`make {name}`" not in COMMANDS} == set()


def test_what_it_links_is_there():
    for name in re.findall(r"`((?:book|\.github)/[\w./-]+|[A-Z]+\.(?:md|cff)|LICENSE)`", README):
        assert (ROOT / name).exists(), name

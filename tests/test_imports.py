"""Nothing points upwards: the rooms of the library in the order that the page of the library shows, each needing only those above."""

import re
import subprocess
import sys
from pathlib import Path

from deeplinear import sources

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lib" / "deeplinear"
SHOWN = (ROOT / "book" / "api.md").read_text(encoding="utf-8").partition("## How it is built")[2].partition("\n## ")[0]


def needs(path):
    """The rooms that a file of the library imports from, functions included; a room is a module or a folder of parts."""
    return {file.relative_to(LIBRARY).parts[0].removesuffix(".py") for file in sources._imported(path, LIBRARY)}


def graph():
    """Room to rooms it needs; ``__init__``, which hands everything out, and ``__main__``, the command, are at the ends."""
    rooms = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        room = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        if room != "__init__":
            rooms.setdefault(room, set()).update(needs(path) - {room, "__init__"})
    return rooms


def levels(needed):
    """The rooms in rows: each needs only rooms of rows before its own. ``ValueError``, naming them, where some form a ring."""
    rows, left = [], dict(needed)
    while left:
        row = sorted(room for room, wants in left.items() if not wants & left.keys())
        if not row:
            raise ValueError(f"a ring of imports among {sorted(left)}")
        rows.append(row)
        left = {room: wants for room, wants in left.items() if room not in row}
    return rows


def test_the_page_shows_the_rooms_in_rows():
    shown = [re.findall(r"`(\w+)`", line.split("|")[2]) for line in SHOWN.splitlines() if line.startswith("| ") and "`" in line]
    assert shown == levels(graph())


def test_a_ring_is_found():
    assert levels({"a": set(), "b": {"a"}, "c": {"a"}, "d": {"c"}}) == [["a"], ["b", "c"], ["d"]]
    for ring in ({"a": {"b"}, "b": {"a"}}, {"a": {"a"}}):
        try:
            levels(ring)
        except ValueError as error:
            assert "'a'" in str(error)
        else:
            raise AssertionError("no ring was found")


def test_what_is_slow_to_import_waits_until_it_is_asked_for():
    script = ("import sys, deeplinear as dl\n"
              "slow = {'matplotlib', 'scipy.stats', 'pandas', 'distributed'}\n"
              "print(sorted(slow & sys.modules.keys()))\ndl.plots\nprint(sorted(slow & sys.modules.keys()))\n"
              "print([name for name in dl.__all__ if getattr(dl, name) is None or name not in dir(dl)])\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['matplotlib']", "[]"]

"""The book's back pages: the tables of claims and of recorded runs, as HTML for a notebook, and the targets of the benchmark."""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import data, recorded


class Table:
    """Rows of HTML fragments under headers; shows itself as an HTML table of class ``kind``, as text its number of rows."""

    def __init__(self, kind: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.kind, self.headers, self.rows = kind, headers, rows

    def __repr__(self):
        return f"<Table of {len(self.rows)} rows>"

    def _repr_html_(self):
        head = "".join(f"<th>{header}</th>" for header in self.headers)
        body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f'<table class="ledger {self.kind}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def read() -> list[dict[str, Any]]:
    """The rows of ``book/claims.yml``: a list of dicts in the order of the book."""
    return yaml.safe_load((data.book_folder("") / "claims.yml").read_text(encoding="utf-8"))


def counts() -> dict[str, int]:
    """How many claims there are of each verdict, a dict in falling order."""
    verdicts = [claim["verdict"] for claim in read()]
    return dict(sorted(((v, verdicts.count(v)) for v in set(verdicts)), key=lambda pair: (-pair[1], pair[0])))


def claims() -> Table:
    """Every claim with its scope, source and verdict, linked to its statement, check, test and run, as a :class:`Table`."""
    rows = []
    for claim in read():
        link = f'<a href="{claim["chapter"]}.html#{claim["id"]}">{claim["id"]}</a>'
        scope = f'<small>{html.escape(claim["scope"])}</small>' if "scope" in claim else ""
        checks = [f'<a href="{claim["chapter"]}.html#check-{claim["id"]}">check</a>',
                  f'<a href="tests.html#test-{claim["id"]}">test</a>']
        if "formal" in claim:
            name = html.escape(claim["formal"])
            checks.append(f'<a href="formal.html#formal-{name}">machine-checked</a> <code>{name}</code>')
        run = f'<a href="recorded-runs.html#run-{claim["record"]}">{claim["record"]}</a>' if claim.get("record") else ""
        rows.append([claim["chapter"][:2].lstrip("0"), link, html.escape(claim["statement"]) + scope,
                     ", ".join(claim["ledger"]), claim["source"], claim["kind"], f'<b>{claim["verdict"]}</b>',
                     ", ".join(checks), run])
    headers = ["ch.", "claim", "statement, scope", "ledger", "source", "kind", "verdict", "checked by", "run"]
    return Table("claims", headers, rows)


def records() -> Table:
    """Every recorded run with its scale, data, device, versions, commit, date, duration and, where one of its jobs was
    run again since, by which commit, on which day and how far from the record, as a :class:`Table`."""
    rows = []
    for path in sorted(Path(data.book_folder("results")).glob("*.json")):
        record = recorded.load(path.stem, quiet=True)
        p = record.provenance
        rows.append([f'<b id="run-{record.name}">{record.name}</b>', p["scale"],
                     f'{p["dataset"]["name"]}<br><code>{p["dataset"]["sha256"][:12]}</code>',
                     html.escape(p["device"]), p["dtype"], f'torch {p["versions"]["torch"]}',
                     f'<code>{p["commit"][:7]}</code>', p["finished"][:10], f'{p["wall_seconds"]} s', _verified(p)])
    return Table("runs", ["run", "scale", "data, SHA-256", "device", "numbers", "versions", "commit", "date", "time", "one job again"],
                 rows)


def targets(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The targets of the benchmark as rows for :func:`deeplinear.checks.table`, those that differ only in their depth in one.

    ``found``: ``"targets"`` of :func:`deeplinear.recorded.benchmark`. A row has the case (of 128 runs, where it does not say
    otherwise), the peer, the depths, the least ratio of speeds that was asked for, the range of those found and of those that
    the roofline allows over the depths (empty where it sets no bound), and the verdict, or how many targets are met where the
    verdicts differ. Raises ``ValueError`` for a target that is no ratio to a peer at one depth.
    """
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    depths: dict[tuple[str, str, float], list[str]] = {}
    for target in found:
        name = re.fullmatch(r"(.+), depth (\d+): engine / (.+)", target["target"])
        if not name:
            raise ValueError(f"target {target['target']!r}; expected '<case>, depth <number>: engine / <peer>'")
        case = name[1].replace(", 128 runs", "").replace("p = ", "p=").replace("float", "f")
        key = case, name[3].removeprefix("autograd "), target["least"]
        groups.setdefault(key, []).append(target)
        depths.setdefault(key, []).append(name[2])
    return [[case, peer, ",".join(depths[case, peer, least]), f"{least:g}", _range(each["found"] for each in group),
             _range(each["roofline_allows"] for each in group), _verdict([each["verdict"] for each in group])]
            for (case, peer, least), group in groups.items()]


def _range(values):
    """The smallest and the largest of the numbers in three digits, once where they are alike; empty where there is none."""
    numbers = [value for value in values if value is not None]
    ends = [f"{end:.3g}" for end in (min(numbers), max(numbers))] if numbers else []
    return "-".join(dict.fromkeys(ends))


def _verdict(verdicts):
    return verdicts[0] if len(set(verdicts)) == 1 else f"{verdicts.count('met')} of {len(verdicts)} met"


def _verified(provenance):
    """One line on the last :func:`deeplinear.verification.verify`; empty where there was none."""
    found = provenance.get("verified")
    if not found:
        return ""
    apart = f'{found["distance"]:.0e} apart' if found["distance"] else "bit for bit"
    return f'{apart}<br><code>{found["commit"][:7]}</code>, {found["date"][:10]}'

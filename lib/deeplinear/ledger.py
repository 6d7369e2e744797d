"""The book's back pages: the table of claims and the table of recorded runs, as HTML for a notebook."""

import html
from collections.abc import Sequence
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


def _verified(provenance):
    """One line on the last :func:`deeplinear.verification.verify`; empty where there was none."""
    found = provenance.get("verified")
    if not found:
        return ""
    apart = f'{found["distance"]:.0e} apart' if found["distance"] else "bit for bit"
    return f'{apart}<br><code>{found["commit"][:7]}</code>, {found["date"][:10]}'

"""The ledger: every claim on every machine, and the folk answer sentence by sentence."""

from __future__ import annotations

import html
import tomllib
from collections import Counter
from importlib.resources import files
from itertools import groupby

from gpbook_utils import claims
from gpbook_utils.records import verdict_in

MARKS = {claims.HOLDS: "✓", claims.REFUTED: "✗", claims.UNOBSERVABLE: "–", "stale": "~", None: ""}
UNDECIDED = "not decided yet"


class Ledger:
    """Claims × machines.

    Args:
        book: the claims of the chapters, as :func:`gpbook_utils.claims.read_all` returns them.
        records: the machines, as :func:`gpbook_utils.records.load` returns them.
    """

    def __init__(self, book: list[dict], records: list[dict]):
        self.book, self.records = book, records

    def __repr__(self) -> str:
        lines = [f"{len(self.book)} claims, {len(self.records)} machines"]
        for record in self.records:
            count = Counter(verdict_in(record, claim) or "not run" for claim in self.book)
            lines.append(f"{record['machine']}: " + ", ".join(f"{n} {verdict}" for verdict, n in sorted(count.items())))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        numbers = range(1, len(self.records) + 1)
        legend = "".join(f"<li>{html.escape(_description(record))}</li>" for record in self.records)
        machines = "".join(f'<th scope="col" aria-label="machine {number}">{number}</th>' for number in numbers)
        parts = [
            f"<p>Machines:</p><ol>{legend}</ol>",
            '<table class="gp-table gp-ledger"><thead><tr><th scope="col">claim</th><th scope="col">book</th>',
            f"{machines}</tr></thead>",
        ]
        for chapter, of_chapter in groupby(self.book, key=lambda claim: claim["chapter"]):
            span = 2 + len(self.records)
            heading = html.escape(chapter.replace("_", " "))
            parts.append(f'<tbody><tr><th colspan="{span}" scope="rowgroup">Chapter {heading}</th></tr>')
            for claim in of_chapter:
                cells = [_cell(claim["verdict"], claim["measured"])]
                for record in self.records:
                    measured = record["claims"].get(claim["id"], {}).get("measured", "")
                    cells.append(_cell(verdict_in(record, claim), measured))
                sentence = f'<span id="ledger-{claim["id"]}">{html.escape(claim["sentence"])}</span>'
                parts.append(f"<tr>{claims.LEFT}{sentence}</td>{''.join(cells)}</tr>")
            parts.append("</tbody>")
        return "".join(parts) + "</table>"


class FolkAnswer:
    """The sentences of the answer that circulates, each with a verdict and the claims that decide it.

    A verdict stands only while all of its claims hold; otherwise the sentence is shown as not decided, with the reason.

    Args:
        book: the claims of the chapters.
        sentences: dictionaries with ``id``, ``sentence``, ``verdict``, ``why`` and ``claims`` (ids); by default the
            book's own table.

    Raises:
        ValueError: if a sentence is decided by a claim that no chapter makes.
    """

    def __init__(self, book: list[dict], sentences: list[dict] | None = None):
        self.rows = []
        verdicts = {claim["id"]: claim["verdict"] for claim in book}
        for row in sentences if sentences is not None else folk_sentences():
            if unknown := [id for id in row["claims"] if id not in verdicts]:
                raise ValueError(f"sentence {row['id']} is decided by {unknown}, which no chapter claims")
            fallen = [id for id in row["claims"] if verdicts[id] != claims.HOLDS]
            if fallen:
                row = row | {"verdict": UNDECIDED, "why": f"{', '.join(fallen)} must hold first"}
            elif not row["claims"]:
                row = row | {"verdict": UNDECIDED, "why": ""}
            self.rows.append(row)

    def __repr__(self) -> str:
        return "\n".join(f"{row['id']:4}{row['verdict']:16}{row['sentence']}" for row in self.rows)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in ("", "the sentence", "verdict", "why", "decided by"))
        body = "".join(
            f'<tr data-verdict="{row["verdict"].split()[0].strip(",")}"><th scope="row">{row["id"]}</th>'
            f"{claims.LEFT}{html.escape(row['sentence'])}</td>"
            f'{claims.LEFT}<strong class="gp-verdict">{html.escape(row["verdict"])}</strong></td>'
            f"{claims.LEFT}{html.escape(row['why'])}</td>"
            f"{claims.LEFT}{', '.join(map(_link, row['claims']))}</td></tr>"
            for row in self.rows
        )
        return f'<table class="gp-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def folk_sentences() -> list[dict]:
    """The sentences of the folk answer, paraphrased, with the verdict that the named claims carry.

    >>> folk_sentences()[0]["id"]
    'F1'
    """
    table = files("gpbook_utils").joinpath("tables", "folk_answer.toml").read_text(encoding="utf-8")
    return [{"verdict": UNDECIDED, "why": "", "claims": [], **row} for row in tomllib.loads(table)["sentence"]]


def _description(record: dict) -> str:
    """What tells this machine from the others, in one line."""
    fingerprint = record["fingerprint"]
    threads = f"{fingerprint['threads']} thread{'s' if fingerprint['threads'] != 1 else ''}"
    switches = " ".join(f"{name}={value}" for name, value in fingerprint["switches"].items())
    words = [
        f"{fingerprint['cpu']} ({fingerprint['architecture']}, {fingerprint['system']})",
        f"ATen {fingerprint['aten']}",
        fingerprint["blas"],
        threads,
        f"GPU {fingerprint['gpu']}",
        f"torch {fingerprint['torch']}",
        *([switches] if switches else []),
    ]
    return f"{', '.join(words)}; recorded {record['date']}"


def _link(id: str) -> str:
    """To the claim's row in the ledger above."""
    return f'<a href="#ledger-{id}"><code>{id}</code></a>'


def _cell(verdict: str | None, measured: str = "") -> str:
    """The verdict, and below it in small type what was measured there, so that the spread between machines shows."""
    spoken = verdict or "not run"
    mark = f'<span role="img" aria-label="{spoken}" title="{spoken}">{MARKS[verdict]}</span>'
    digits = f"<small>{html.escape(measured)}</small>" if measured else ""
    return f'<td data-verdict="{spoken}">{mark}{digits}</td>'

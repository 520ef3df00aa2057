"""Records, written: every chapter runs here without being stored, and what it decides becomes this machine's record.

``python -m book.records`` writes it, and says where it disagrees with the book and what it shares with other machines.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from book import notebooks, stored_claims
from gpbook_utils import claims
from gpbook_utils.files import replace_file
from gpbook_utils.machines import bits, machine, records


def sharing(record: dict, others: list[dict]) -> list[str]:
    """One line for each other record that can be compared: on how many claims and results in bits the two agree.

    >>> claim = {"verdict": "holds", "measured": "", "digest": "x"}
    >>> others = [{"machine": "b", "claims": {"one": claim, "two": claim}}, {"machine": "c", "claims": {"two": claim}}]
    >>> sharing({"machine": "a", "claims": {"one": claim}}, others)
    ['b: same verdict on 1 of 1 claims; its bits are not comparable']
    """
    lines = []
    for other in (other for other in others if other["machine"] != record["machine"]):
        verdicts = [
            (entry["verdict"], other["claims"][id]["verdict"])
            for id, entry in record["claims"].items()
            if other["claims"].get(id, {}).get("digest") == entry["digest"]
        ]
        same = bits.shared(records.hashes(record), records.hashes(other))
        if not verdicts and not same:
            continue
        in_bits = f"same bits of {sum(same.values())} of {len(same)} results" if same else "its bits are not comparable"
        agreeing = sum(a == b for a, b in verdicts)
        lines.append(f"{other['machine']}: same verdict on {agreeing} of {len(verdicts)} claims; {in_bits}")
    return lines


def decide(chapters: list[Path], report=print) -> list[dict]:
    """Run chapters on this machine, storing nothing, and return the claims that they decide.

    Args:
        chapters: paths of chapter notebooks.
        report: called with one line of text as each chapter ends.

    Raises:
        ChapterError: if a cell fails; a failure is not a verdict.
    """
    decided = []
    for path in chapters:
        executed = notebooks.execute(notebooks.read(path), path.parent, name=path.name)
        here = stored_claims.from_notebook(executed, path.stem)
        decided += here
        report(f"{path.stem}: {len(here)} claims decided")
    return decided


def disagreements(decided: list[dict], book: list[dict]) -> list[str]:
    """One line for each claim on which this machine's verdict is not the book's.

    >>> claim = {"id": "a-claim", "sentence": "One is two.", "verdict": "refuted", "measured": "2", "bound": "near 1"}
    >>> disagreements([claim], [claim | {"verdict": "holds"}])
    ['a-claim: refuted here (measured 2; needed near 1), holds in the book: One is two.']
    """
    in_the_book = {claim["id"]: claim["verdict"] for claim in book}
    lines = []
    for claim in decided:
        in_book = in_the_book.get(claim["id"], "absent")
        if claim["verdict"] != in_book:
            detail = f" (measured {claim['measured']}; needed {claim['bound']})" if claim["measured"] else ""
            lines.append(f"{claim['id']}: {claim['verdict']} here{detail}, {in_book} in the book: {claim['sentence']}")
    return lines


def write(decided: list[dict], folder: str | Path, keep: Iterable[str] = ()) -> Path:
    """Write this machine's record, whole or not at all, and return its path.

    Args:
        decided: the claims of the chapters that ran.
        folder: of the records.
        keep: ids of claims of chapters that did not run; their entries, and the hashes of bits, stay as they were.
    """
    fingerprint = machine.fingerprint()
    before = [record for record in records.load(folder) if record["machine"] == machine.identity(fingerprint)]
    keep = set(keep)
    stays = {id: entry for record in before for id, entry in record["claims"].items() if id in keep}
    record = {
        "machine": machine.identity(fingerprint),
        "date": datetime.date.today().isoformat(),
        "fingerprint": fingerprint,
        "claims": stays
        | {
            claim["id"]: {"verdict": claim["verdict"], "measured": claim["measured"], "digest": claims.digest(claim)}
            for claim in decided
        },
    }
    if not keep:
        record["bits"] = {"edition": bits.EDITION, **bits.hashes(bits.computations())}
    elif before and "bits" in before[0]:
        record["bits"] = before[0]["bits"]
    path = Path(folder) / f"{record['machine']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Decide every claim here and write this machine's record. Exit status 1 if a claim falls, 2 if a chapter fails."""
    parser = argparse.ArgumentParser(prog="python -m book.records", description=main.__doc__)
    parser.add_argument("chapter", nargs="?", default="", help="one chapter; claims of others keep their entries")
    parser.add_argument("--chapters", type=Path, default=Path("chapters"), help="default: %(default)s")
    parser.add_argument("--records", type=Path, default=Path("records"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        every = [path for path in notebooks.chapters(options.chapters) if path.name != notebooks.LEDGER]
        chosen = [path for path in notebooks.select(options.chapters, options.chapter) if path in every]
        book = stored_claims.read_all(every)
        others = {claim["id"] for claim in book if claim["chapter"] not in {path.stem for path in chosen}}
        decided = decide(chosen)
        path = write(decided, options.records, keep=others)
    except (OSError, ValueError, notebooks.ChapterError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"written: {path}")
    differing = disagreements(decided, book)
    print("\n".join(differing) if differing else f"this machine agrees with the book on all {len(decided)} claims")
    known = records.load(options.records)
    here = next(record for record in known if record["machine"] == path.stem)
    print("\n".join(["shared with the other recorded machines:", *sharing(here, known)]))
    return int(any(claim["verdict"] == claims.REFUTED for claim in decided))


if __name__ == "__main__":
    sys.exit(main())

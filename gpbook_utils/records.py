"""Records: what one machine decided about every claim of the book, as one JSON file a machine.

``python -m gpbook_utils.records`` runs every chapter here without storing it, writes this machine's record, says where
it disagrees with the book, and brings the ledger page up to date.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from gpbook_utils import bits, claims, machine, notebooks

FIELDS = ("machine", "date", "fingerprint", "claims")


def load(folder: str | Path) -> list[dict]:
    """Every record in ``folder``, ordered by the machine's name.

    Returns:
        Dictionaries with ``machine`` (its name), ``date``, ``fingerprint`` and ``claims`` (id to ``verdict``,
        ``measured`` and ``digest``); newer ones also ``bits`` (the edition of the computations, and a hash for each).

    Raises:
        ValueError: if a file is not a record, or does not bear its machine's name.

    >>> load("no such folder")
    []
    """
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            problem = _problem(record)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: is not a record ({error}); write it with `make record`") from error
        if problem:
            raise ValueError(f"{path}: is not a record: {problem}; write it with `make record`")
        if path.stem != record["machine"]:
            raise ValueError(f"{path}: holds the record of {record['machine']}; a record bears its machine's name")
        found.append(record)
    return found


def of_this_machine(folder: str | Path) -> list[dict]:
    """The records of this computer under these switches, whatever was installed on it, its GPU included.

    >>> of_this_machine("no such folder")
    []
    """
    same = ("architecture", "system", "cpu", "switches")
    here = machine.fingerprint()
    return [record for record in load(folder) if all(record["fingerprint"][key] == here[key] for key in same)]


def verdict_in(record: dict, claim: dict) -> str | None:
    """What ``record`` says of a claim of the book: a verdict, ``"stale"``, or ``None`` if it was never run there.

    A verdict is stale when the sentence or the bound has changed since.

    >>> claim = {"id": "a-claim", "sentence": "One is one.", "bound": ""}
    >>> verdict_in({"claims": {"a-claim": {"verdict": "holds", "digest": "of another sentence"}}}, claim)
    'stale'
    """
    entry = record["claims"].get(claim["id"])
    if entry is None:
        return None
    return entry["verdict"] if entry["digest"] == claims.digest(claim) else "stale"


def label(record: dict) -> str:
    """What tells a recorded machine from the others in a figure: processor, ATen's level, threads, MKL's branch.

    >>> label({"fingerprint": {"cpu": "AMD", "aten": "AVX2", "threads": 1, "switches": {"MKL_CBWR": "COMPATIBLE"}}})
    'AMD, AVX2, 1 thread, COMPATIBLE'
    """
    found = record["fingerprint"]
    threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
    return ", ".join(filter(None, [found["cpu"], found["aten"], threads, found["switches"].get("MKL_CBWR")]))


def hashes(record: dict) -> dict[str, str]:
    """The hashes of :func:`gpbook_utils.bits.computations` in a record, without the edition.

    A record that has none, or those of another edition, gives an empty dictionary.

    >>> hashes({"machine": "an older one"})
    {}
    """
    stored = dict(record.get("bits", {}))
    return stored if stored.pop("edition", None) == bits.edition() else {}


def sharing(record: dict, others: list[dict]) -> list[str]:
    """One line for each other record: on how many claims and how many results in bits the two agree.

    >>> claim = {"verdict": "holds", "measured": "", "digest": "x"}
    >>> sharing({"machine": "a", "claims": {"one": claim}}, [{"machine": "b", "claims": {"one": claim, "two": claim}}])
    ['b: same verdict on 1 of 1 claims; its bits are not comparable']
    """
    lines = []
    for other in (other for other in others if other["machine"] != record["machine"]):
        verdicts = [
            (entry["verdict"], other["claims"][id]["verdict"])
            for id, entry in record["claims"].items()
            if other["claims"].get(id, {}).get("digest") == entry["digest"]
        ]
        same = bits.shared(hashes(record), hashes(other))
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
        here = claims.from_notebook(executed, path.stem)
        decided += here
        report(f"{path.stem}: {len(here)} claims decided")
    return decided


def disagreements(decided: list[dict], book: list[dict]) -> list[str]:
    """One line for each claim on which this machine's verdict is not the book's.

    >>> claim = {"id": "a-claim", "sentence": "One is two.", "verdict": "refuted", "measured": "2", "bound": "near 1"}
    >>> disagreements([claim], [claim | {"verdict": "holds"}])
    ['a-claim: refuted here (measured 2; needed near 1), holds in the book: One is two.']
    """
    stored = {claim["id"]: claim["verdict"] for claim in book}
    lines = []
    for claim in decided:
        in_book = stored.get(claim["id"], "absent")
        if claim["verdict"] != in_book:
            detail = f" (measured {claim['measured']}; needed {claim['bound']})" if claim["measured"] else ""
            lines.append(f"{claim['id']}: {claim['verdict']} here{detail}, {in_book} in the book: {claim['sentence']}")
    return lines


def write(decided: list[dict], folder: str | Path) -> Path:
    """Write this machine's record, whole or not at all, and return its path."""
    fingerprint = machine.fingerprint()
    record = {
        "machine": machine.identity(fingerprint),
        "date": datetime.date.today().isoformat(),
        "fingerprint": fingerprint,
        "claims": {
            claim["id"]: {"verdict": claim["verdict"], "measured": claim["measured"], "digest": claims.digest(claim)}
            for claim in decided
        },
        "bits": {"edition": bits.edition(), **bits.hashes(bits.computations())},
    }
    path = Path(folder) / f"{record['machine']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    notebooks.replace_file(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Decide every claim here and write this machine's record. Exit status 1 if a chapter fails or a claim falls."""
    parser = argparse.ArgumentParser(prog="python -m gpbook_utils.records", description=main.__doc__)
    parser.add_argument("--chapters", type=Path, default=Path("chapters"), help="default: %(default)s")
    parser.add_argument("--records", type=Path, default=Path("records"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        every = notebooks.select(options.chapters)
        chapters = [path for path in every if path.name != notebooks.LEDGER]
        book = claims.read_all(chapters)
        decided = decide(chapters)
        path = write(decided, options.records)
        for page in every[len(chapters) :]:
            notebooks.run(page)
    except (OSError, ValueError, notebooks.ChapterError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"written: {path}")
    differing = disagreements(decided, book)
    print("\n".join(differing) if differing else f"this machine agrees with the book on all {len(decided)} claims")
    known = load(options.records)
    here = next(record for record in known if record["machine"] == path.stem)
    print("\n".join(["shared with the other recorded machines:", *sharing(here, known)]))
    return int(any(claim["verdict"] == claims.REFUTED for claim in decided))


def _problem(record: dict) -> str:
    """What is wrong with the contents of a record, or nothing."""
    if missing := [field for field in FIELDS if field not in record]:
        return f"it lacks {', '.join(missing)}"
    if machine.identity(record["fingerprint"]) != record["machine"]:
        return "its fingerprint is not that of its machine"
    for id, entry in record["claims"].items():
        if entry["verdict"] not in claims.VERDICTS or not {"measured", "digest"} <= entry.keys():
            return f"its entry of claim {id!r} is {entry!r}"
    stored = record.get("bits", {"edition": ""})  # older records have none
    if "edition" not in stored or not all(isinstance(hashed, str) for hashed in stored.values()):
        return f"its bits are {stored!r}"
    return ""


if __name__ == "__main__":
    sys.exit(main())

"""Records, read: what each recorded machine decided about every claim of the book, one JSON file a machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gpbook_utils import arguments, claims
from gpbook_utils.machines import bits, machine

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
    arguments.instance("folder", folder, (str, os.PathLike), "a path")
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


def label(record: dict) -> str:
    """What tells a recorded machine from the others in a figure: processor, ATen's level, threads, MKL's branch.

    >>> label({"fingerprint": {"cpu": "AMD", "aten": "AVX2", "threads": 1, "switches": {"MKL_CBWR": "COMPATIBLE"}}})
    'AMD, AVX2, 1 thread, COMPATIBLE'
    """
    found = arguments.mapping("record", record, keys=["fingerprint"])["fingerprint"]
    threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
    return ", ".join(filter(None, [found["cpu"], found["aten"], threads, found["switches"].get("MKL_CBWR")]))


def hashes(record: dict) -> dict[str, str]:
    """The hashes of :func:`gpbook_utils.machines.bits.computations` in a record, without the edition.

    A record that has none, or those of another edition, gives an empty dictionary.

    >>> hashes({"machine": "an older one"})
    {}
    """
    stored = dict(arguments.mapping("record", record).get("bits", {}))
    return stored if stored.pop("edition", None) == bits.EDITION else {}


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

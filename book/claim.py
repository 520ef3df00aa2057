"""One claim on its way: ``make claim C=07 ID=name`` runs all that a pull request needs of it, and says what lacks.

The chapter is run and stored in guard mode, the claim's sabotages are applied, the ledger page is brought up to date
and the book is linted. Nothing is written but what `make run` writes.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from book import ledger, lint, notebooks, sabotage, stored_claims

PLAN = """\
    [[sabotage]]
    why = "what is wrong in that world"
    refutes = ["{id}"]
    replace = "a line of the chapter's code"
    by = "the line that makes the claim false"
"""


def follow(root: Path, chapter: str, id: str, report=print) -> list[str]:
    """What still lacks before the claim ``id`` of a chapter can be merged, a few lines each.

    Args:
        root: the top folder of the book.
        chapter: its number or name.
        id: of the claim.
        report: called with a line of text as each step ends.

    Raises:
        ValueError: if there is no such chapter, or it makes no such claim.
        ChapterError: if the chapter does not run, or the run refutes a claim.
    """
    if not chapter or not id:
        raise ValueError(
            f"name a chapter and a claim, as in `make claim C=07 ID=name`; got C={chapter!r} and ID={id!r}"
        )
    (path,) = notebooks.select(root / "chapters", chapter)
    notebooks.run(path)
    decided = {claim["id"]: claim for claim in stored_claims.read(path)}
    if id not in decided:
        close = difflib.get_close_matches(id, decided) or list(decided)
        raise ValueError(f"{path.name} ran, and makes no claim {id!r}; it makes {', '.join(close) or 'none'}")
    claim = decided[id]
    measured = f" (measured {claim['measured']}; bound {claim['bound']})" if claim["measured"] else ""
    report(f"run       {claim['verdict']}: {claim['sentence']}{measured}")
    missing = []
    plan = sabotage.PLANS / f"{path.stem}.toml"
    if any(id in one.refutes for one in sabotage.read_plan(plan).sabotages):
        if sabotage.main([str(path), id]):
            missing.append(f"a sabotage that refutes it: the one in {plan} does not")
        else:
            report("sabotage  refutes it")
    else:
        missing.append(f"a sabotage that refutes it, in {plan}:\n{PLAN.format(id=id)}")
    if (page := path.with_name(notebooks.LEDGER)).exists():
        notebooks.run(page)
        report(f"ledger    {page.name} is up to date")
    problems = lint.lint(root)
    missing += [f"what the lint asks for: {problem}" for problem in problems]
    if not problems:
        report("lint      finds nothing")
    if id not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        missing.append("its name in CHANGELOG.md, under the next release")
    if not any(ledger.verdict_in(record, claim) not in (None, "stale") for record in _records(root)):
        missing.append(f"a machine that recorded it: `make record C={chapter}` on yours, once all else is done")
    return missing


def _records(root: Path) -> list[dict]:
    from gpbook_utils.machines import records  # here, since it imports torch

    return records.load(root / "records")


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 if nothing lacks, 1 if something does, 2 if there is no such claim."""
    parser = argparse.ArgumentParser(prog="python -m book.claim", description=__doc__)
    parser.add_argument("chapter", help="its number or name")
    parser.add_argument("id", help="of the claim")
    options = parser.parse_args(arguments)
    try:
        missing = follow(lint.ROOT, options.chapter, options.id)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, notebooks.ChapterError) as error:
        print(error, file=sys.stderr)
        return 1
    print("Nothing lacks." if not missing else "\nIt lacks:\n" + "\n".join(f"- {line}" for line in missing))
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())

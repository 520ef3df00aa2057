"""Make the environment of the book in `.venv`, or the autograder's; `make` calls this when one is missing or old.

This file starts under Python 2.7 and later, so that it can say which one is needed; `install.py` does the rest.
"""

import os
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 13)
RANGE = "Python 3.{} to 3.{}".format(OLDEST[1], NEWEST[1])


def answers(python, minor):
    """Whether the command `python` runs and is Python 3.`minor`: a version manager may offer one that it lacks."""
    question = "import sys; sys.exit(sys.version_info[:2] != (3, {}))".format(minor)
    with open(os.devnull, "w") as nowhere:
        try:
            return subprocess.call([python, "-c", question], stdout=nowhere, stderr=nowhere) == 0
        except OSError:
            return False


def wrong_python(version):
    """What to do if `version`, a tuple such as (3, 9), is none that the book supports; None if it is."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    minors = range(NEWEST[1], OLDEST[1] - 1, -1)
    found = [minor for minor in minors if answers("python3.{}".format(minor), minor)]
    return "This is Python {}.{} ({}); the book needs {}.\n{}:  make book PYTHON=python3.{}".format(
        version[0],
        version[1],
        sys.executable,
        RANGE,
        "You have one" if found else "Install one, then",
        (found or minors)[0],
    )


if __name__ == "__main__":
    problem = wrong_python(sys.version_info)
    if problem:
        sys.exit("\n" + problem)
    from install import main  # beside this file

    sys.exit(main())

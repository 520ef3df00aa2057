"""A process that is told to end with its parent does."""

import subprocess
import sys
import time

import psutil
import pytest

from gpbook_utils.sweeps.orphans import end_with

CHILD = """
import os, time
from gpbook_utils.sweeps.orphans import end_with
end_with(os.getppid())
print(os.getpid(), flush=True)  # only now may its parent be killed
time.sleep(600)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_a_child_ends_with_its_killed_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.5)  # while its parent lives, so does it
        assert child.is_running()
        parent.kill()
    end = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the orphan lives on"
        time.sleep(0.05)


@pytest.mark.parametrize("parent", [0, -1, True, None, "1"])
def test_bad_input(parent):
    with pytest.raises(ValueError, match="parent must be a whole number, at least 1; got"):
        end_with(parent)

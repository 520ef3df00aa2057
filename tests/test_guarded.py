"""A function that is called in a process of its own can stop that process at most."""

import multiprocessing
import os
import sys

import pytest

from grading import guarded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the autograder needs Linux")


def deep(value):
    return deep([value])


def endless():
    while True:
        pass


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (int, ["x"], "ValueError: invalid literal"),
        (deep, [0], "RecursionError"),
        (bytearray, [2**40], "MemoryError"),
        (os._exit, [7], "ended with 7"),
        (os.abort, [], "ended with -6"),
        (sys.exit, ["bye"], "SystemExit: bye"),
    ],
)
def test_what_goes_wrong_is_said(function, arguments, said):
    with pytest.raises(guarded.Failed, match=said):
        guarded.call(function, *arguments)


def test_what_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(guarded, "SECONDS", 1)
    before = multiprocessing.active_children()  # of other tests
    with pytest.raises(guarded.Failed, match="took longer than 1 s"):
        guarded.call(endless)
    assert set(multiprocessing.active_children()) <= set(before)


def test_a_large_file_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(guarded, "LIMITS", {guarded.resource.RLIMIT_FSIZE: 1000})
    with pytest.raises(guarded.Failed, match="File too large"):
        guarded.call((tmp_path / "large").write_bytes, bytes(2000))
    assert (tmp_path / "large").stat().st_size <= 1000

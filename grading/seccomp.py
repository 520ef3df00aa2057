"""Shuts the calls of the system that a notebook never needs and that reach beyond its cage.

Keys, sockets of virtual machines and io_uring are not divided among cages; memory that no process maps is counted by no
look at processes. A notebook that calls one of them is told that the system has no such call.
"""

from __future__ import annotations

import contextlib
import errno
import platform
import struct
import tempfile
from collections.abc import Iterator

# Numbers of the calls: of the kernel's ABI, which never changes. /usr/include/asm-generic/unistd.h is Arm's.
SHUT = {
    "x86_64": {"socket": 41, "shmget": 29, "memfd_create": 319, "memfd_secret": 447, "add_key": 248, "request_key": 249,
               "keyctl": 250, "io_uring_setup": 425, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323},
    "aarch64": {"socket": 198, "shmget": 194, "memfd_create": 279, "memfd_secret": 447, "add_key": 217,
                "request_key": 218, "keyctl": 219, "io_uring_setup": 425, "bpf": 280, "perf_event_open": 241,
                "userfaultfd": 282},
}  # fmt: skip
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FAMILIES = (1, 2, 10, 16)  # sockets that may be made: of files, of the internet (there is none), of the kernel's routes

_LOAD, _EQUAL, _GREATER, _RETURN = 0x20, 0x15, 0x35, 0x06  # of classic BPF: a word, jumps, the verdict
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _MACHINE, _FIRST = 0, 4, 16  # where seccomp_data keeps the call's number, its machine and its first argument
_X32 = 0x40000000  # numbers from here on mean the same calls in another form


@contextlib.contextmanager
def program() -> Iterator[int]:
    """A file with the filter, as ``bwrap --seccomp`` reads it; its number."""
    with tempfile.TemporaryFile() as file:
        file.write(assembled(platform.machine()))
        file.seek(0)
        yield file.fileno()


def assembled(machine: str) -> bytes:
    """The filter for one kind of processor.

    >>> len(assembled("x86_64")) % 8
    0
    """
    refused = {name: number for name, number in SHUT[machine].items() if name != "socket"}
    steps = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, AUDIT[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    refuse = (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)
    steps += [(_GREATER, 0, 1, _X32), refuse] if machine == "x86_64" else []
    for number in refused.values():
        steps += [(_EQUAL, 0, 1, number), refuse]
    steps += [(_EQUAL, 1, 0, SHUT[machine]["socket"]), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _FIRST)]
    for family in FAMILIES:
        steps += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in [*steps, refuse])

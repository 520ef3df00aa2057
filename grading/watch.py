"""What a cage may take, in total: memory, tasks and time.

Limits of a single process do not hold for forty of them together. So a thread of the grader looks at the whole cage ten
times a second and ends it when it takes too much; as root a control group does the same with no gap between two looks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK = 0.1  # seconds
REMOVAL = 60.0  # seconds that a control group may take to become empty
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limits:
    """What one submission may take; the defaults are many times what an assignment needs.

    Attributes:
        memory: bytes of all its processes together.
        tasks: processes and threads together; a kernel has about a dozen threads.
        cell: seconds of one cell.
        total: seconds of the whole submission, with all attempts.
        output: bytes of messages of one cell.
        file: bytes of one file.
    """

    memory: int = 4 * 2**30
    tasks: int = 256
    cell: float = 30.0
    total: float = 600.0
    output: int = 2_000_000
    file: int = 50 * 2**20

    @property
    def command(self) -> list[str]:
        """The start of a command line that limits each single process."""
        sizes = [f"--data={self.memory}", f"--fsize={self.file}", f"--cpu={int(self.total)}", "--nofile=512"]
        return ["prlimit", *sizes, "--core=0"]


@contextlib.contextmanager
def limited(limits: Limits) -> Iterator[tuple[list[str], Callable]]:
    """Watch one cage.

    Yields:
        The start of a command line that enters the control group (empty where there is none), and a function to call
        with the started process. When the cage takes too much, that process is killed, and the cage with it.
    """
    ended = threading.Event()
    watcher = None

    def watched(process: subprocess.Popen) -> None:
        nonlocal watcher
        watcher = threading.Thread(target=_watch, args=(process, limits, ended), daemon=True)
        watcher.start()

    groups = _groups(limits)
    files = " ".join(f"{group}/cgroup.procs" for group in groups)
    enter = ["sh", "-c", f'for f in {files}; do echo $$ > "$f"; done; exec "$@"', "sh"] if groups else []
    try:
        yield enter, watched
    finally:
        ended.set()
        if watcher:
            watcher.join()
        for group in groups:
            _remove(group)


def usage(process: psutil.Process) -> tuple[int, int]:
    """Bytes of memory and number of tasks of ``process`` and all that it started; shared pages count for each."""
    memory = tasks = 0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            memory += one.memory_info().rss
            tasks += one.num_threads()
    return memory, tasks


def _watch(process, limits, ended) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        cage = psutil.Process(process.pid)
        while not ended.wait(LOOK) and process.poll() is None:
            memory, tasks = usage(cage)
            if memory > limits.memory or tasks > limits.tasks:
                process.kill()


def _groups(limits: Limits) -> list[Path]:
    """New control groups with the limits of memory and tasks, version 1 or 2; none without the right to make them."""
    # Of a grader that was killed. Path.glob would stop at a group that another grader removes meanwhile.
    found = [Path(folder, name) for folder, names, _ in os.walk(CGROUPS) for name in names]
    for left in found:
        if left.name.startswith("gpbook-") and not psutil.pid_exists(int(left.name.split("-")[1])):
            _remove(left)
    name = f"gpbook-{os.getpid()}-{time.monotonic_ns()}"
    if (CGROUPS / "cgroup.controllers").exists():
        wanted = {CGROUPS / name: {"memory.max": limits.memory, "memory.swap.max": 0, "pids.max": limits.tasks}}
    else:
        wanted = {
            CGROUPS / "memory" / name: {"memory.limit_in_bytes": limits.memory},
            CGROUPS / "pids" / name: {"pids.max": limits.tasks},
        }
    made = []
    try:
        for group, values in wanted.items():
            group.mkdir()
            made.append(group)
            for file, value in values.items():
                (group / file).write_text(str(value))
    except OSError:
        for group in made:
            _remove(group)
        return []
    return made


def _remove(group: Path) -> None:
    end = time.monotonic() + REMOVAL
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        # The cage's own end reaches all of its processes, but a busy kernel takes seconds to bury hundreds of them.
        with contextlib.suppress(OSError):
            for process in map(int, (group / "cgroup.procs").read_text().split()):
                if process > 0:  # 0 stands for one of another namespace; to kill, it means the caller's own group
                    os.kill(process, signal.SIGKILL)
        time.sleep(LOOK)

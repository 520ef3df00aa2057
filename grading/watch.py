"""What a cage may take, in total: memory, tasks and computing time.

Limits of a single process do not hold for forty of them together. So a thread of the grader looks at the whole cage ten
times a second and ends it when it takes too much; as root a control group does the same with no gap between two looks,
counts what no process shows, and gives each cage one core, so that none takes another's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK = 0.1  # seconds
REMOVAL = 60.0  # seconds that a control group may take to become empty
CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds, in each of which a cage computes as many: one core


@dataclass(frozen=True)
class Limits:
    """What one submission may take; the defaults are many times what an assignment needs.

    Attributes:
        memory: bytes of all its processes together.
        tasks: processes and threads together; a kernel has about a dozen threads.
        cell: seconds that one cell computes.
        total: seconds that the whole submission computes, with all attempts.
        output: characters that one cell displays.
        outputs: characters that the whole submission displays.
        file: bytes of one file.
    """

    memory: int = 4 * 2**30
    tasks: int = 256
    cell: float = 30.0
    total: float = 600.0
    output: int = 2_000_000
    outputs: int = 10_000_000
    file: int = 50 * 2**20

    @property
    def command(self) -> list[str]:
        """The start of a command line that limits each single process."""
        sizes = [f"--data={self.memory}", f"--fsize={self.file}", f"--cpu={int(self.total)}", "--nofile=512"]
        return ["prlimit", *sizes, "--core=0"]


class Watched:
    """What is known of one cage while it is watched."""

    def __init__(self, groups: list[Path], limits: Limits):
        self.groups = groups
        self.limits = limits
        self.process: psutil.Process | None = None
        self.ended = threading.Event()
        files = " ".join(f"{group}/cgroup.procs" for group in groups)
        #: The start of a command line that enters the control groups; empty where there are none.
        self.enter = ["sh", "-c", f'for f in {files}; do echo $$ > "$f"; done; exec "$@"', "sh"] if groups else []
        self._thread: threading.Thread | None = None

    def start(self, process: subprocess.Popen) -> None:
        """Watch the cage that ``process`` holds: when it takes too much, that process and the cage are killed."""
        self.process = psutil.Process(process.pid)
        self._thread = threading.Thread(target=_watch, args=(process, self), daemon=True)
        self._thread.start()

    def computed(self) -> float:
        """Seconds that all of the cage's processes have computed so far, those that have ended with them."""
        for group in self.groups:
            with contextlib.suppress(OSError):  # version 1
                return int((group / "cpuacct.usage").read_text()) / 1e9
            with contextlib.suppress(OSError):  # version 2
                said = (group / "cpu.stat").read_text().split()
                if said[0] == "usage_usec":
                    return int(said[1]) / 1e6
        seconds = 0.0
        for one in _family(self.process):
            with contextlib.suppress(psutil.Error):
                seconds += sum(one.cpu_times()[:4])
        return seconds

    def stop(self) -> None:
        """End the watch and remove the control groups."""
        self.ended.set()
        if self._thread:
            self._thread.join()
        for group in self.groups:
            _remove(group)


@contextlib.contextmanager
def limited(limits: Limits) -> Iterator[Watched]:
    """Watch one cage, whose process is given to ``Watched.start``."""
    watched = Watched(_groups(limits), limits)
    try:
        yield watched
    finally:
        watched.stop()


def usage(process: psutil.Process) -> tuple[int, int]:
    """Bytes of memory and number of tasks of ``process`` and all that it started; shared pages count for each."""
    memory = tasks = 0
    for one in _family(process):
        with contextlib.suppress(psutil.Error):
            memory += one.memory_info().rss
            tasks += one.num_threads()
    return memory, tasks


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def _watch(process: subprocess.Popen, watched: Watched) -> None:
    while not watched.ended.wait(LOOK) and process.poll() is None:
        memory, tasks = usage(watched.process)
        if memory > watched.limits.memory or tasks > watched.limits.tasks:
            process.kill()


def has_groups() -> bool:
    """Whether control groups can be made here; without them the watch alone limits a cage."""
    groups = _groups(Limits())
    for group in groups:
        _remove(group)
    return bool(groups)


def _groups(limits: Limits) -> list[Path]:
    """New control groups with the limits of memory and tasks, version 1 or 2; none without the right to make them."""
    # Of a grader that was killed. Path.glob would stop at a group that another grader removes meanwhile.
    found = [Path(folder, name) for folder, names, _ in os.walk(CGROUPS) for name in names]
    for left in found:
        if left.name.startswith("gpbook-") and not psutil.pid_exists(int(left.name.split("-")[1])):
            _remove(left)
    name = f"gpbook-{os.getpid()}-{time.monotonic_ns()}"
    if (CGROUPS / "cgroup.controllers").exists():
        with contextlib.suppress(OSError):  # as systemd has done on most machines
            (CGROUPS / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        sizes = {"memory.max": limits.memory, "memory.swap.max": 0, "pids.max": limits.tasks}
        wanted = {CGROUPS / name: {**sizes, "cpu.max": f"{PERIOD} {PERIOD}"}}
    else:
        wanted = {
            CGROUPS / "memory" / name: {"memory.limit_in_bytes": limits.memory},
            CGROUPS / "pids" / name: {"pids.max": limits.tasks},
        }
        for kind, values in {"cpu": {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": PERIOD}, "cpuacct": {}}.items():
            if (CGROUPS / kind).is_dir():  # often two names of one folder
                wanted[CGROUPS / kind / name] = values
    made = []
    try:
        for group, values in wanted.items():
            group.mkdir(exist_ok=True)
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
    while group.exists() and time.monotonic() < end:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        # The cage's own end reaches all of its processes, but a busy kernel takes seconds to bury hundreds of them.
        with contextlib.suppress(OSError):
            for process in map(int, (group / "cgroup.procs").read_text().split()):
                if process > 0:  # 0 stands for one of another namespace; to kill, it means the caller's own group
                    os.kill(process, signal.SIGKILL)
        time.sleep(LOOK)

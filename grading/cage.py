"""The cage: one IPython kernel inside bubblewrap, for a program that nobody has read.

The kernel sees the system's libraries and the book's environment, read-only, and an empty home and working folder that
live in memory. It has no network, no other process, no other submission, no solution and no gradebook, and it talks to
the grader through socket files in a folder that holds nothing else. What it leaves behind is gone when it ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from grading import seccomp, watch

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv/bin/python"  # the book's environment: what students compute with
START = 90.0  # seconds; a cold disk and a busy machine need more than the three that are usual
MEGABYTE = 2**20


class NoCage(Exception):
    """This machine cannot run a cage, so nothing is graded."""


def check() -> None:
    """Make sure that a cage works here.

    Raises:
        NoCage: without bubblewrap, without the right to use it, or without the book's environment.
    """
    if not shutil.which("bwrap"):
        raise NoCage(
            "Nothing was graded: the program 'bwrap' is missing, and no submission runs outside of a cage.\n"
            "On Debian and Ubuntu:  apt-get install bubblewrap    (Linux only)"
        )
    if not PYTHON.exists():
        raise NoCage(f"Nothing was graded: the book's environment is missing ({PYTHON}). Make it:  make book")
    # Not /tmp itself, where the book may lie.
    with tempfile.TemporaryDirectory(prefix="gpbook-") as sockets, seccomp.program() as shut:
        command = [*_outer(sockets), *_walls(Path(sockets), shut=shut), str(PYTHON), "-c", ""]
        trial = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[shut])
    if trial.returncode:
        raise NoCage(
            f"Nothing was graded: the book's Python does not start in a cage here: {trial.stderr.strip()}\n"
            "A cage needs unprivileged user namespaces (in a container, the right to make them)."
        )


def apart(command: list[str], sockets: str) -> list[str]:
    """``command`` in a bubble of its own, in which it may make cages: what it starts ends with it, and has no network.

    Args:
        command: the program of the grader that runs one submission.
        sockets: an empty folder, over which a small one in memory is laid for the kernel's sockets.
    """
    return [*_outer(sockets), *command]


@contextmanager
def kernel(files: list[Path], sockets: str | Path, limits: watch.Limits, environment=None) -> Iterator[Kernel]:
    """Start a caged kernel; it and all that it started are killed at the end.

    Args:
        files: the assignment's data files, which stand read-only in the kernel's working folder.
        sockets: where the connection's files may be made; the kernel can write there.
        limits: what it may take.
        environment: further environment variables for the kernel.

    Raises:
        RuntimeError: if no kernel answers.
    """
    for old in Path(sockets).iterdir():
        old.unlink()
    connection, _ = write_connection_file(str(Path(sockets, "kernel.json")), transport="ipc", ip=f"{sockets}/k")
    with watch.limited(limits) as watched, seccomp.program() as shut:
        launch = [str(PYTHON), "-m", "ipykernel_launcher", "-f", connection]
        command = [*_walls(Path(sockets), files, environment, shut), *limits.command, *launch]
        # Nothing of the grader's environment: the kernel can read that of the process that made its cage.
        process = subprocess.Popen(
            [*watched.enter, *command],
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[shut],
        )
        client = BlockingKernelClient(connection_file=connection)
        try:
            watched.start(process)
            client.load_connection_file()
            client.start_channels()
            running = Kernel(client, process, watched.computed)
            running.wait_until_ready()
            yield running
        finally:
            client.stop_channels()
            process.kill()
            process.wait()


class Kernel:
    """A running kernel: the ``client`` that talks to it, the ``process`` that holds it, the seconds it ``computed``."""

    def __init__(self, client, process, computed=None):
        self.client = client
        self.process = process
        self.computed = computed

    def wait_until_ready(self) -> None:
        """Return when the kernel has answered for the first time.

        Raises:
            RuntimeError: if it has ended, or does not answer.
        """
        # The client's own way takes a kernel for dead that a busy machine keeps waiting for a second. A reply alone is
        # not enough either: the channel of outputs connects by itself, and what was published before that is lost.
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self.is_alive():
            self.client.kernel_info()
            with contextlib.suppress(queue.Empty):
                self.client.get_shell_msg(timeout=1.0)
                self.client.get_iopub_msg(timeout=1.0)
                return
        raise RuntimeError(f"the kernel did not answer within {START:.0f} s" if self.is_alive() else "the kernel ended")

    def is_alive(self) -> bool:
        """Whether the cage, and so the kernel, has not ended."""
        return self.process.poll() is None


def _outer(sockets: str) -> list[str]:
    # No new /proc here: bubblewrap covers parts of it, and then Linux refuses the inner cage one of its own.
    bubble = ["bwrap", "--dev-bind", "/", "/", "--unshare-net", "--unshare-ipc", "--die-with-parent"]
    return [*bubble, "--size", str(16 * MEGABYTE), "--tmpfs", sockets]


def _python() -> list[str]:
    """The arguments of bubblewrap that show the book's environment and the Python that it was made from.

    The environment's own link to that Python may lead through others, in folders of which the kernel should see nothing
    else: pyenv, uv and Debian's alternatives keep such.
    """
    python, prefix, environment = PYTHON.resolve(), PYTHON.resolve().parents[1], PYTHON.parents[1]
    walls = [word for name in {str(prefix), str(environment)} for word in ("--ro-bind", name, name)]
    link, shown = PYTHON, ["/usr", *_TOP, prefix, environment]
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / os.readlink(link)))
        if not any(link.is_relative_to(folder) for folder in shown):
            return [*walls, "--symlink", str(python), str(link)]
    return walls


def _walls(sockets: Path, files=(), environment=None, shut=None) -> list[str]:
    """The command line of bubblewrap, up to the program that it starts; ``shut`` is a file of ``seccomp``."""
    walls = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    walls += ["--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--hostname", "cage", "--clearenv"]
    walls += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in _TOP:
        if os.path.islink(name):
            walls += ["--symlink", os.readlink(name), name]
        else:
            walls += ["--ro-bind-try", name, name]
    walls += ["--proc", "/proc", "--dev", "/dev"]
    walls += [] if shut is None else ["--seccomp", str(shut)]
    for name in ("/proc/keys", "/proc/key-users"):  # they name the keys of other cages
        walls += ["--ro-bind-try", "/dev/null", name] if os.path.exists(name) else []
    for name, size in {"/dev/shm": 64, "/tmp": 256, "/home/student": 16, "/work": 128}.items():
        walls += ["--size", str(size * MEGABYTE), "--tmpfs", name]
    walls += ["--remount-ro", "/dev"]
    walls += [*_python(), "--ro-bind", str(ROOT / "gpbook_utils"), "/book/gpbook_utils"]
    for path in files:
        walls += ["--ro-bind", str(path), f"/work/{path.name}"]
    walls += ["--bind", str(sockets), str(sockets), "--remount-ro", "/", "--chdir", "/work"]
    for name, value in {**_ENVIRONMENT, **(environment or {})}.items():
        walls += ["--setenv", name, value]
    return walls


_TOP = ("/bin", "/lib", "/lib64", "/lib32")  # links into /usr, on most systems
_ENVIRONMENT = {
    "HOME": "/home/student",
    "PATH": f"{PYTHON.parent}:/usr/bin:/bin",
    "PYTHONPATH": "/book",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "LANG": "C.UTF-8",
    # One thread: marks then depend on nothing that a busy machine changes, and students share the cores fairly.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}

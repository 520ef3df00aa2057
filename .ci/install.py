"""Make the environment of the book in `.venv`, or the autograder's; `environment.py` calls this under a fitting Python.

It needs the standard library only. `.venv/ready` is written last: without it the environment is unfinished, and the
next `make` goes on.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys

from environment import RANGE

# For which torch's wheels are built.
MACOS, GLIBC = (14,), (2, 28)
MADE_FOR = (
    f"The book needs {RANGE} on Linux (x86-64 or Arm, glibc {GLIBC[0]}.{GLIBC[1]} or later)\n"
    f"or macOS {MACOS[0]} or later (Apple silicon), as PyTorch does."
)
THIS = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GIGABYTE = 1e9
# Room for the installed packages, pip's cache of them, and what pip unpacks on the way.
SPACE = {"cpu": 4, "cuda": 12}

NETWORK = re.compile(
    "NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|Connection reset|Connection refused"
    "|ProxyError|SSLError|CERTIFICATE|Name or service not known|name resolution|nodename nor servname"
    "|Network is unreachable",
    re.IGNORECASE,
)
NO_SPACE = re.compile("No space left on device|Disk quota exceeded|Errno 28|Errno 122")
NO_PACKAGE = re.compile("No matching distribution found for (.+)")


class Problem(Exception):
    """What is wrong, and what to do."""


def check_system():
    """Raise a Problem unless torch, the most demanding of the pins, is built for this system."""
    machine = platform.machine()
    if platform.system() == "Darwin":
        name, release = "macOS", platform.mac_ver()[0]
        # Arm came with macOS 11: "10.16" is what a Python built for older ones hears of any later one.
        fits = machine == "arm64" and (release.startswith("10.") or _numbers(release) >= MACOS)
    else:
        name, release = platform.libc_ver()
        fits = name == "glibc" and _numbers(release) >= GLIBC and machine in ("x86_64", "aarch64")
    if not fits:
        raise Problem(f"This is {name or platform.system()} {release} on {machine}.\n{MADE_FOR}")


def _numbers(release):
    return tuple(int(number) for number in re.findall(r"\d+", release))


def check_modules():
    """Raise a Problem unless this Python can make environments (Debian and Ubuntu leave a part out)."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise Problem(
            f"{THIS} ({sys.executable}) cannot make environments: it has no module '{error.name}'.\n"
            f"On Debian and Ubuntu:  apt-get install {THIS.lower().replace(' ', '')}-venv"
        ) from error


def check_space(torch, free):
    """Raise a Problem unless ``free`` bytes are enough for ``torch``, which is "default" or "cpu"."""
    cuda = torch == "default" and platform.system() == "Linux"
    needed = SPACE["cuda" if cuda else "cpu"]
    if free >= needed * GIGABYTE:
        return
    raise Problem(
        f"The disk of {os.getcwd()} has {free / GIGABYTE:.1f} GB free; installing needs {needed} GB.\n"
        "Free some space, or move the book to a larger disk."
        + (f"\nThe CPU build of torch needs {SPACE['cpu']} GB only:  make book TORCH=cpu" if cuda else "")
    )


def explain(log):
    """What went wrong, and what to do about it, from the text of pip's log."""
    if NO_SPACE.search(log):
        return "The disk is full. Free some space (`df -h . /tmp` shows it), then run the same command again."
    if NETWORK.search(log):
        return (
            "The packages could not be downloaded: the package index does not answer.\n"
            "Check the network and, behind a proxy, the variables HTTPS_PROXY and PIP_INDEX_URL;\n"
            "then run the same command again. What was downloaded is kept."
        )
    missing = NO_PACKAGE.search(log)
    if missing:
        return f"The package index has no {missing.group(1)} for {THIS} on {platform.platform()}.\n{MADE_FOR}"
    return "pip failed. Its last lines:\n" + "\n".join("  " + line for line in log.splitlines()[-8:])


def run(command, log):
    """Run ``command``, keep all it says in the file ``log``, and show the large downloads on the way."""
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
        for line in process.stdout:
            file.write(line)
            download = re.match(r"\s*(?:Downloading|Using cached) (?:.*/)?(.+) (\([\d.]+ [MG]B\))$", line)
            if download:
                print("  ", *download.groups(), flush=True)
            elif line.startswith("Installing collected packages"):
                print("  ", line.count(",") + 1, "packages are being installed", flush=True)
    if process.wait():
        with open(log, encoding="utf-8") as file:
            raise Problem(f"{explain(file.read())}\nAll that pip said: {os.path.abspath(log)}")


def is_usable(python):
    """Whether ``python`` is an environment's Python of this version with a working pip."""
    question = f"import pip, sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    try:
        return subprocess.call([python, "-c", question], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def make(folder, torch, requirements, packages):
    """Make or complete the environment in ``folder``; on failure it is left without its ``ready`` file."""
    ready, log = os.path.join(folder, "ready"), os.path.join(folder, "install.log")
    python = os.path.join(folder, "bin", "python")
    if os.path.exists(ready):
        os.remove(ready)
    if not is_usable(python):
        check_space(torch, shutil.disk_usage(".").free)
        print(f"Making {folder} with {THIS}", flush=True)
        if subprocess.call([sys.executable, "-m", "venv", "--clear", folder]):
            raise Problem(f"`{sys.executable} -m venv {folder}` failed; its message is above.")
    open(log, "w", encoding="utf-8").close()
    print(f"Installing what {requirements} names; the first time takes minutes", flush=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--retries=3"]
    quiet = ["install", "--progress-bar=off"]
    extra = ["--extra-index-url", CPU_INDEX] if torch == "cpu" and platform.system() == "Linux" else []
    run([*pip, *quiet, *extra, "-r", requirements, "-c", "constraints.txt"], log)
    # The autograder has gpbook without what gpbook asks for, so that the check is made while it is away.
    run([*pip, "uninstall", "--yes", "gpbook"], log)
    run([*pip, "check"], log)
    own = [argument for package in packages for argument in ("--editable", os.path.join(".", package))]
    run([*pip, *quiet, "--no-deps", "--no-build-isolation", *own], log)
    with open(ready, "w", encoding="utf-8") as file:
        file.write(f"{THIS}, torch: {torch}\n")


def main(arguments=None):
    """Make the environment; exit status 1 and a message if that can't be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="default", choices=["default", "cpu"], help="which build of torch")
    parser.add_argument("--folder", default=".venv", help="where the environment goes")
    parser.add_argument("--requirements", default="requirements.txt", help="what is installed")
    parser.add_argument("--packages", default=[".", "book", "grading"], nargs="+", help="the book's own, by folder")
    options = parser.parse_args(arguments)
    try:
        check_system()
        check_modules()
        make(options.folder, options.torch, options.requirements, options.packages)
    except Problem as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return 1
    return 0

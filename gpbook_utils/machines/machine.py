"""Which machine is this? Its fingerprint, and running a command under a lower instruction set.

``python -m gpbook_utils.machines`` prints the fingerprint; ``python -m gpbook_utils.machines lowered COMMAND ...``
runs a command with the processor's newer instructions switched off, after showing that this really changed something;
``python -m gpbook_utils.machines each COMMAND ...`` runs it in each of :func:`environments`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import gpytorch
import linear_operator
import numpy as np
import torch

from gpbook_utils import arguments
from gpbook_utils.files import PACKAGE
from gpbook_utils.switches import BRANCHES

# Settings that change which code computes a result, and in how many threads. They are part of the fingerprint.
SWITCHES = tuple(sorted([*BRANCHES, "MKL_NUM_THREADS", "OMP_NUM_THREADS"]))
LOWERED = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OMP_NUM_THREADS": "1"}
# MKL ignores MKL_ENABLE_INSTRUCTIONS on processors that are not Intel's; this branch of its code runs on all of them.
COMPATIBLE = {"MKL_CBWR": "COMPATIBLE"}
_SIMD = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def fingerprint() -> dict:
    """What can change a computed number on this machine, and nothing that names its user, its paths or its host.

    Returns:
        Strings, numbers, a list of instruction sets, and under ``switches`` a dictionary of environment variables.

    >>> sorted(fingerprint())[:4]
    ['architecture', 'aten', 'blas', 'cpu']
    """
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu_name(),
        "simd": _simd(),
        "aten": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32 matmul": torch.get_float32_matmul_precision(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__.split("+")[0],
        "gpytorch": gpytorch.__version__,
        "linear_operator": linear_operator.__version__,
        "numpy": np.__version__,
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def identity(print_: dict | None = None) -> str:
    """A short name for a fingerprint (this machine's by default): readable words and a hash of the whole.

    >>> identity() == identity(fingerprint())
    True
    """
    print_ = fingerprint() if print_ is None else print_
    arguments.mapping("print_", print_, keys=("cpu", "aten", "threads", "switches"))
    whole = json.dumps(print_, sort_keys=True).encode()
    words = [print_["cpu"], print_["aten"], f"{print_['threads']} threads", print_["switches"].get("MKL_CBWR", "")]
    slug = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
    return f"{slug}-{hashlib.sha256(whole).hexdigest()[:6]}"


def probe() -> dict[str, str]:
    """Which code computes: ATen's instruction set, and a hash of the bits of a matrix product and of a Cholesky factor.

    The inputs come from NumPy's generator, whose stream does not depend on the instruction set.
    """
    A = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 300)))
    gram = A @ A.T
    results = {
        "float32 product": A.float() @ A.float().T,
        "product": gram,
        "Cholesky": torch.linalg.cholesky(gram + 300 * torch.eye(300)),
    }
    bits = {name: hashlib.sha256(result.numpy().tobytes()).hexdigest()[:8] for name, result in results.items()}
    return {"ATen": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads()), **bits}


def probe_in(environment: dict[str, str]) -> dict[str, str]:
    """:func:`probe` in a new process with the given environment variables added, and no other switch set.

    Raises:
        RuntimeError: if the process fails, with what it wrote.
    """
    code = "import json; from gpbook_utils.machines import machine; print(json.dumps(machine.probe()))"
    return json.loads(run_in(environment, code))


def run_in(environment: Mapping[str, str], code: str) -> bytes:
    """What Python code writes to its standard output in a new process.

    Args:
        environment: variables added to this process's own; no other switch of :data:`SWITCHES` is set.
        code: may import this package.

    Raises:
        RuntimeError: if the process fails, with what it wrote.

    >>> run_in({"OMP_NUM_THREADS": "1"}, "import os; print(os.environ['OMP_NUM_THREADS'])").split()
    [b'1']
    """
    arguments.mapping("environment", environment, str)
    arguments.instance("code", code, str, "a text")
    search_path = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**without_switches(), "PYTHONPATH": os.pathsep.join(search_path), **environment},
        capture_output=True,
    )
    if child.returncode:
        raise RuntimeError(f"the process failed under {dict(environment)}:\n{child.stderr.decode(errors='replace')}")
    return child.stdout


def without_switches() -> dict[str, str]:
    """This process's environment variables without :data:`SWITCHES`."""
    return {name: value for name, value in os.environ.items() if name not in SWITCHES}


def lowered_environment() -> tuple[dict[str, str], str]:
    """The environment variables that lower this machine's instruction set, and a report of what they change.

    Returns:
        The variables, with ``MKL_CBWR`` only where MKL's bits would otherwise stay, and the report as lines of text.

    Raises:
        RuntimeError: if the instruction set of an x86-64 processor does not change, or MKL's bits stay. Other
            processors have no lower level in ATen; there one thread is all that changes, and the report says so.
    """
    one_thread = {"OMP_NUM_THREADS": "1"}
    before, after, environment = probe_in(one_thread), probe_in(LOWERED), dict(LOWERED)
    bits = ("float32 product", "product", "Cholesky")
    if "MKL" in _blas() and all(before[name] == after[name] for name in bits):
        environment |= COMPATIBLE
        after = probe_in(environment)
    changed = [name for name in ("ATen", *bits) if before[name] != after[name]]
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    report = (
        f"default, 1 thread: {before}\nlowered:           {after}\n"
        f"settings: {settings}\nchanged: {', '.join(changed) or 'nothing'}"
    )
    unchanged = "ATen" not in changed or ("MKL" in _blas() and not set(bits) & set(changed))
    if unchanged and platform.machine() in ("x86_64", "AMD64"):
        raise RuntimeError(f"the instruction set did not change; a second run would prove nothing here\n{report}")
    return environment, report


def environments() -> dict[str, dict[str, str]]:
    """The environments in which the book is checked and recorded, by name: variables to set; all other switches unset.

    *default*, *one-thread*, *lowered* (:func:`lowered_environment`) and, where torch computes with MKL, *compatible*:
    the branch of MKL that runs on every x86-64 processor, with all threads.

    Raises:
        RuntimeError: as :func:`lowered_environment`.
    """
    named = {"default": {}, "one-thread": {"OMP_NUM_THREADS": "1"}, "lowered": lowered_environment()[0]}
    return named | ({"compatible": dict(COMPATIBLE)} if "MKL" in _blas() else {})


def run_in_each(command: list[str]) -> dict[str, int]:
    """The exit status of a command in each of :func:`environments`, one after the other.

    Raises:
        RuntimeError: as :func:`lowered_environment`.
        OSError: if the command can't be started.
        ValueError: if the command is not a list of texts.
    """
    statuses, command = {}, arguments.items("command", command)
    arguments.need(command and all(isinstance(word, str) for word in command), "command", "a list of texts", command)
    for name, variables in environments().items():
        settings = " ".join(f"{key}={value}" for key, value in variables.items())
        print(f"== {name}: {settings or 'no switch is set'}", flush=True)
        statuses[name] = subprocess.run(command, env={**without_switches(), **variables}).returncode
    return statuses


def main(arguments: list[str] | None = None) -> int:
    """Print this machine's fingerprint, or run a command under the lowered instruction set, or in each environment."""
    parser = argparse.ArgumentParser(prog="python -m gpbook_utils.machines", description=main.__doc__)
    parser.add_argument("action", nargs="?", choices=["show", "lowered", "each"], default="show")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="for lowered and each: the command and its arguments")
    options = parser.parse_args(arguments)
    if options.action == "show":
        print(json.dumps({"machine": identity(), **fingerprint()}, indent=2))
        return 0
    if not options.command:
        parser.error(f"{options.action} needs a command to run")
    try:
        if options.action == "each":
            statuses = run_in_each(options.command)
            for name, code in statuses.items():
                print(f"{name}: exit status {code}" if code else f"{name}: ok")
            return int(any(statuses.values()))
        environment, report = lowered_environment()
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report, flush=True)
    try:
        return subprocess.run(options.command, env={**os.environ, **environment}).returncode
    except OSError as error:
        print(f"{options.command[0]}: {error.strerror}", file=sys.stderr)
        return 1


def _cpu_name() -> str:
    """Vendor, family and model rather than the brand name, which a virtual machine may hide or invent."""
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    info, vendors = _cpuinfo(), {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}
    vendor = vendors.get(info.get("vendor_id", ""), info.get("CPU implementer", ""))
    model = info.get("model", info.get("CPU part", ""))
    family = f"family {info['cpu family']} model" if "cpu family" in info else ""
    return " ".join(filter(None, [vendor or platform.machine(), family, model]))


def _simd() -> list[str]:
    flags = set(_cpuinfo().get("flags", _cpuinfo().get("Features", "")).split())
    return [name for name in _SIMD if name in flags]


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first_core = path.read_text().split("\n\n")[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first_core.splitlines())}


def _blas() -> str:
    built = torch.__config__.show()
    match = re.search(r"BLAS_INFO=(\w+)", built)
    name = match[1].upper() if match else "unknown"
    version = re.search(r"(?:Math Kernel Library|oneMKL) Version ([\w.]+)", built)
    return f"{name} {version[1]}" if version else name

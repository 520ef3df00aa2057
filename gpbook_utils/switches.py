"""Environment variables that choose which code computes a result, beside the number of threads."""

from __future__ import annotations

import os

BRANCHES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
)


def branches() -> dict[str, str]:
    """Which of :data:`BRANCHES` are set in this process, and to what.

    >>> branches().keys() <= set(BRANCHES)
    True
    """
    return {name: os.environ[name] for name in BRANCHES if name in os.environ}

"""What torch computes under, for a time: the number of threads and the default format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing(threads: int, dtype: torch.dtype | None = None) -> Iterator[None]:
    """So many threads, and this default format; afterwards both are as they were.

    >>> before = torch.get_num_threads()
    >>> with computing(1, torch.float64):
    ...     torch.get_num_threads(), torch.ones(1).dtype
    (1, torch.float64)
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype or before[1])
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])

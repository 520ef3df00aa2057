"""One result as one file: written whole or not at all, read back only if it is whole.

The first line is a JSON object, the second the SHA-256 of the first. Numbers and texts stand there as they are, arrays
and tensors with their bytes in base64, so that reading a file runs no code and gives back every bit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch

from gpbook_utils import arguments
from gpbook_utils.files import replace_file
from gpbook_utils.sweeps.sources import tensor_bytes

SUFFIX = ".jsonl"
TENSOR, ARRAY = "torch", "numpy"


def encode(values: dict) -> dict:
    """What a run returned, in terms of JSON; an array or tensor of no dimension becomes a number.

    Raises:
        ValueError: unless it is a dictionary of texts, numbers, truth values, ``None``, arrays of numbers and dense
            tensors, under names that are texts.

    >>> decode(encode({"loss": torch.tensor(0.5), "name": "a"}))
    {'loss': 0.5, 'name': 'a'}
    """
    arguments.mapping("what a run returns", values)
    return {name: _encode(name, value) for name, value in values.items()}


def decode(values: dict) -> dict:
    """The inverse of :func:`encode`: tensors as tensors, on the processor, and arrays as arrays."""
    return {name: _decode(value) if isinstance(value, dict) else value for name, value in values.items()}


def write(path: str | Path, record: dict) -> str:
    """Write a result to ``path``, which others see whole or not at all, and return its text."""
    text = json.dumps(record)
    replace_file(path, text + "\n" + json.dumps({"sha256": _digest(text)}) + "\n")
    return text


def read(path: str | Path) -> dict | None:
    """The result in the file ``path``; ``None`` if there is no such file.

    Raises:
        ValueError: if the file was cut off, changed or renamed.
    """
    path = Path(path)
    try:
        text, end = path.read_text(encoding="utf-8").splitlines()
        record = json.loads(text)
        if json.loads(end) != {"sha256": _digest(text)}:
            raise ValueError("its hash is not that of its content")
        if record["key"] != path.name.removesuffix(SUFFIX):
            raise ValueError(f"it holds the result {record['key']}")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from error
    return record


def _encode(name: str, value):
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized:
        if value.dim() == 0 and not value.is_complex():
            return value.item()
        kind, dtype, content = TENSOR, str(value.dtype).removeprefix("torch."), tensor_bytes(value)
    elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        if value.ndim == 0 and value.dtype.kind != "c" and value.dtype.itemsize <= 8:
            return value.item()
        kind, dtype, content = ARRAY, value.dtype.str, np.ascontiguousarray(value).tobytes()
    else:
        raise ValueError(
            f"a run must return numbers, texts, truth values, None, arrays of numbers or dense tensors; "
            f"{name!r} is {type(value).__name__}: {arguments.short(value)}"
        )
    return {"kind": kind, "dtype": dtype, "shape": list(value.shape), "base64": base64.b64encode(content).decode()}


def _decode(value: dict):
    content, shape = bytearray(base64.b64decode(value["base64"])), value["shape"]
    if value["kind"] == ARRAY:
        return np.frombuffer(content, dtype=np.dtype(value["dtype"])).reshape(shape)
    dtype = getattr(torch, value["dtype"])
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype).reshape(shape)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

"""What a function's result depends on, as a hash: its code, and what it reads from where it was defined.

A result on disk may be served again only if the function would compute it again. So :func:`source_hash` covers the
function's compiled code (comments and layout do not count), its default values, the variables it closes over, the
global variables it names, and all of this again for each function and class of the notebook that it uses. Of this
package it covers the modules that the function reaches (:mod:`gpbook_utils.reach`), of an installed library the name
and version. What can't be told apart by its content is refused.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime
import dis
import enum
import functools
import hashlib
import inspect
import math
import os
import pathlib
import struct
import sys
import sysconfig
import types
from bisect import bisect_left
from collections import namedtuple
from pathlib import Path

import numpy as np
import torch

from gpbook_utils import reach

IMPORTED = reach.Sources()  # this package's modules as they are imported, not as they are edited later
INSTALLED = tuple({f"{Path(sysconfig.get_path(name)).resolve()}{os.sep}" for name in ("stdlib", "purelib", "platlib")})
NAMED = (  # what C code defines has no code to look at
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.MethodWrapperType,
    np.ufunc,
)
RUN_FLAGS = (
    inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
)  # fmt: skip
IDLE = ("NOP", "CACHE", "EXTENDED_ARG", "PUSH_NULL", "RESUME")
JUMPS = {*dis.hasjrel, *dis.hasjabs}
NAMING = {*dis.hasname, *dis.haslocal, *dis.hasfree}
PLAIN = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, pathlib.PurePath, range, slice)
WITHOUT_CONTENT = (  # places for a value of an instance, and what Python remembers of an abstract class
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    type(vars(namedtuple("_Pair", "a b"))["a"]),
    type(vars(abc.ABC)["_abc_impl"]),
)
_FACTORY = dataclasses._HAS_DEFAULT_FACTORY  # type: ignore[attr-defined] # typeshed lacks it
SENTINELS = (type(dataclasses.MISSING), type(dataclasses.KW_ONLY), type(_FACTORY))
TIMES = (datetime.date, datetime.time, datetime.timedelta)


def source_hash(function) -> str:
    """SHA-256, in hexadecimal, of the code of ``function`` and of all that it reads, but for its arguments.

    Two functions of equal code that read equal things have equal hashes, also in two processes. Not covered, since no
    hash could tell: what is in files that it opens, and what the libraries it calls are set to (their versions are).

    Raises:
        ValueError: if it is no function, or reads something that has no such hash: a model, a random generator, an
            open file. The message names it and says what to do instead.

    >>> step = 1
    >>> def move(x):
    ...     return x + step
    >>> before = source_hash(move)
    >>> step = 2
    >>> source_hash(move) == before
    False
    """
    if not callable(function):
        raise ValueError(f"function must be callable; got {type(function).__name__}: {function!r}")
    reader = _Reader()
    digest = reader.digest(function, getattr(function, "__name__", "the function"))
    return _hash(digest, IMPORTED.hash(reader.names).encode()).hex()


class _Reader:
    """Digests of things, each thing once: by their content, never by their address."""

    def __init__(self):
        self.known: dict[int, tuple[object, bytes]] = {}  # the object too, so that its address is not used again
        self.depth = 0
        self.names: set[str] = set()  # of the modules that the things come from, and of what may be imported

    def digest(self, thing, path: str) -> bytes:
        """32 bytes; ``path`` says how a reader would get at ``thing``."""
        if id(thing) in self.known:
            return self.known[id(thing)][1]
        # Something that holds itself, as a recursive function does, finds there how far up it stands.
        self.known[id(thing)] = thing, _hash(b"itself", str(self.depth).encode())
        self.depth += 1
        found = _hash(*self.parts(thing, path))
        self.depth -= 1
        self.known[id(thing)] = thing, found
        return found

    def parts(self, thing, path: str) -> list[bytes]:
        """The kind of a thing, and the digests of what it consists of."""
        kind = type(thing)
        self.names.add(kind.__module__)
        name = f"{kind.__module__}.{kind.__qualname__}".encode()
        if thing is None or thing is Ellipsis or thing is NotImplemented or kind in (bool, int, str):
            return [name, repr(thing).encode()]
        if kind in SENTINELS:
            return [name]
        if kind in (float, complex):
            return [name, struct.pack("<dd", complex(thing).real, complex(thing).imag)]
        if kind in (bytes, bytearray):
            return [name, bytes(thing)]
        if isinstance(thing, types.ModuleType):
            return self.module(thing, path)
        if isinstance(thing, type):
            return self.of_class(thing, path)
        if isinstance(thing, types.FunctionType):
            return self.function(thing, path)
        if isinstance(thing, types.CodeType):
            return self.code(thing, path)
        if isinstance(thing, torch.Tensor | np.ndarray | np.generic):
            return [name, *self.array(thing, path)]
        if isinstance(thing, enum.Enum):
            return [name, thing.name.encode(), self.digest(thing.value, path)]
        if isinstance(thing, PLAIN) or kind in TIMES or kind is datetime.datetime:
            return [name, str(thing).encode() if isinstance(thing, pathlib.PurePath) else repr(thing).encode()]
        if isinstance(thing, tuple | list):
            return [name, *self.class_of(thing, path), *(self.digest(v, f"{path}[{i}]") for i, v in enumerate(thing))]
        if isinstance(thing, set | frozenset):
            return [name, *sorted(self.digest(value, path) for value in thing)]
        if isinstance(thing, dict | types.MappingProxyType):
            items = [(self.digest(k, f"a key of {path}"), self.digest(v, f"{path}[{k!r}]")) for k, v in thing.items()]
            return [name, *self.class_of(thing, path), *(part for item in items for part in item)]
        return [name, *self.behaviour(thing, path)]

    def behaviour(self, thing, path: str) -> list[bytes]:
        """Things that do something: methods, partial functions, properties, instances of data classes."""
        if isinstance(thing, NAMED):
            owner = getattr(thing, "__self__", None)
            of = [] if owner is None or isinstance(owner, types.ModuleType | type) else [self.digest(owner, path)]
            return [getattr(thing, "__qualname__", thing.__name__).encode(), *self.library(thing), *of]
        if isinstance(thing, types.MethodType):
            return [self.digest(thing.__func__, path), self.digest(thing.__self__, f"the object of {path}")]
        if isinstance(thing, functools.partial):
            return [self.digest(part, path) for part in (thing.func, thing.args, thing.keywords)]
        if isinstance(thing, staticmethod | classmethod | functools._lru_cache_wrapper):
            return [self.digest(thing.__wrapped__, path)]
        if isinstance(thing, property):
            return [self.digest(part, path) for part in (thing.fget, thing.fset, thing.fdel)]
        if isinstance(thing, functools.cached_property):
            return [self.digest(thing.func, path)]
        if dataclasses.is_dataclass(thing):
            fields = [field.name for field in dataclasses.fields(thing)]
            extra = sorted(set(getattr(thing, "__dict__", {})) - set(fields))
            values = [self.digest(getattr(thing, name), f"{path}.{name}") for name in fields + extra]
            return [self.digest(type(thing), path), *values]
        raise ValueError(
            f"the function reads {path}, a {type(thing).__module__}.{type(thing).__qualname__}, whose content has no "
            "hash, so its results could not be told from old ones. Make it inside the function, from the settings and "
            "the seed; of a trained model, let the function read the state_dict()"
        )

    def function(self, function: types.FunctionType, path: str) -> list[bytes]:
        parts = [b"function"]
        read, missing = {}, object()
        home = sys.modules.get(function.__module__)
        if _is_installed(function.__module__):
            parts += [function.__qualname__.encode(), *self.library(function)]
            if _is_at_home(function):
                return parts
        for name in sorted(_globals_read(function.__code__)):
            if _is_installed(function.__module__) and function.__globals__ is vars(home):
                break  # a function that a library made: what it reads there belongs to the version
            value = function.__globals__.get(name, missing)
            if value is not missing and not _is_of_the_notebook(value):  # or a builtin, or the run will fail
                read[name] = self.digest(value, name)
        closure = []
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                closure.append(self.digest(cell.cell_contents, name))
            except ValueError as error:
                if str(error) != "Cell is empty":
                    raise
                closure.append(b"empty")
        return [
            *parts,
            self.digest(function.__code__, path),
            self.digest(function.__defaults__, f"a default of {path}"),
            self.digest(function.__kwdefaults__, f"a default of {path}"),
            *closure,
            *(part for name, found in read.items() for part in (name.encode(), found)),
        ]

    def code(self, code: types.CodeType, path: str) -> list[bytes]:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & RUN_FLAGS)
        names = (code.co_varnames, code.co_freevars, code.co_cellvars)
        constants = [self.digest(constant, path) for constant in code.co_consts]
        self.names |= reach.mentioned(code.co_names)  # imports within the function
        self.names.update(*(reach.started(constant) for constant in code.co_consts if isinstance(constant, str)))
        return [b"code", repr((counts, names, _steps(code))).encode(), *constants]

    def of_class(self, cls: type, path: str) -> list[bytes]:
        if _is_installed(cls.__module__) and _is_at_home(cls):
            return [b"class", cls.__qualname__.encode(), *self.library(cls)]
        parts = [b"class", cls.__qualname__.encode(), self.digest(type(cls), path)]
        parts += [self.digest(base, f"a base of {path}") for base in cls.__bases__]
        for name, value in sorted(vars(cls).items()):
            # Of what Python itself keeps in a class, only what can be called makes a difference to a run.
            hidden = name.startswith("__") and name.endswith("__") and not isinstance(value, types.FunctionType)
            if not hidden and not isinstance(value, WITHOUT_CONTENT):
                parts += [name.encode(), self.digest(value, f"{path}.{name}")]
        return parts

    def class_of(self, container, path: str) -> list[bytes]:
        """For a container of a class of one's own, that class."""
        return [] if _is_installed(type(container).__module__) else [self.digest(type(container), path)]

    def module(self, module: types.ModuleType, path: str) -> list[bytes]:
        """An installed module by its version, one of one's own by its file and those that it imports."""
        if _is_installed(module.__name__):
            # Of a package, code may use any module that some other code has imported.
            self.names.update(name for name in IMPORTED.modules if name.startswith(f"{module.__name__}."))
            return [b"module", module.__name__.encode(), *self.library(module)]
        if (file := getattr(module, "__file__", None)) is None:
            raise ValueError(f"the function reads the module {path}, which has no file; import what it needs from it")
        source = Path(file).read_bytes().replace(b"\r\n", b"\n")
        self.names |= reach.imported(source.decode())
        parts = [b"module", source]
        for name, value in sorted(vars(module).items()):
            from_elsewhere = isinstance(value, types.FunctionType | type) and value.__module__ != module.__name__
            if isinstance(value, types.ModuleType) or from_elsewhere:
                parts.append(self.digest(value, f"{path}.{name}"))
        return parts

    def library(self, thing) -> list[bytes]:
        """Where something installed comes from, and in which version."""
        name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
        module = sys.modules[name or "builtins"]
        self.names.add(module.__name__)
        top = sys.modules.get(module.__name__.partition(".")[0])
        return [module.__name__.encode(), str(getattr(top, "__version__", "")).encode()]

    def array(self, array, path: str) -> list[bytes]:
        if isinstance(array, torch.Tensor):
            if array.layout is not torch.strided or array.is_quantized:
                raise ValueError(f"the function reads {path}, a tensor that is not dense; make it inside the function")
            return [repr((array.dtype, array.shape, array.requires_grad)).encode(), tensor_bytes(array)]
        if array.dtype.hasobject:
            raise ValueError(
                f"the function reads {path}, an array of Python objects; use a list or an array of numbers"
            )
        return [repr((array.dtype.str, array.shape)).encode(), np.ascontiguousarray(array).tobytes()]


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The entries of a dense tensor in row-major order, as they lie in memory.

    >>> tensor_bytes(torch.tensor([1.0, -2.0], dtype=torch.bfloat16)).hex()
    '803f00c0'
    """
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if math.prod(tensor.shape) else b""


def _steps(code: types.CodeType) -> list[tuple]:
    """What the code does, step by step, with the steps that it jumps to and those where exceptions are caught.

    How a method of a module is looked up is left out: Python compiles it in another way if the ``import`` stands in the
    same cell.
    """
    kept = [step for step in dis.get_instructions(code) if step.opname not in IDLE]
    offsets = [step.offset for step in kept]
    steps: list[tuple] = []
    for step in kept:
        argument = step.argval if step.opcode in NAMING else step.arg
        if step.opcode in JUMPS:
            argument = "to", bisect_left(offsets, step.argval)
        steps.append((step.opname.replace("LOAD_METHOD", "LOAD_ATTR"), argument))
    caught = [
        (*(bisect_left(offsets, place) for place in (entry.start, entry.end, entry.target)), entry.depth)
        for entry in dis.Bytecode(code).exception_entries  # type: ignore[attr-defined] # typeshed lacks it
    ]
    return [*steps, *caught]


def _globals_read(code: types.CodeType) -> set[str]:
    """The names that the code, and the functions within it, look up among the globals."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return names.union(*(_globals_read(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def _is_of_the_notebook(thing) -> bool:
    """Whether IPython put it among the globals, as it does with an ``open`` of its own: a script would not have it."""
    return getattr(thing, "__globals__", {}).get("__name__", "").startswith("IPython.")


def _is_at_home(thing) -> bool:
    """Whether a function or class is what its module has under its name, and was not made by another function."""
    found: object = sys.modules[thing.__module__]
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


def _is_installed(name: str | None) -> bool:
    """Whether a module is known by name and version: the book's package, the standard library, and site-packages."""
    top = (name or "").partition(".")[0]
    if top in ("builtins", "gpbook_utils"):
        return True
    if top == "__main__" or top not in sys.modules:
        return False
    module = sys.modules[top]
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    if place is None:  # compiled into Python, or made by hand
        return top in sys.stdlib_module_names
    return str(Path(place).resolve()).startswith(INSTALLED) or "site-packages" in Path(place).parts


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()

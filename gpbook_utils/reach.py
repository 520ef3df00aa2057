"""What code reaches: the modules of the book's packages that it imports, directly or not, and the tables these read.

Import statements are read wherever they stand, and nothing is imported. Code that is started as a text counts too: an
import statement within a text, or a text that is a module's full name, is followed like any other. A module counts by
its syntax: comments, layout and docstrings make no difference, and neither does the version of Python that reads it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("gpbook_utils", "book")
# Which module reads which file or folder; a test finds a file of the packages that is missing here.
READS = {"gpbook_utils/data.py": "gpbook_utils/tables", "book/ledger.py": "book/folk_answer.toml"}


class Sources:
    """The modules of the book's packages and the files that these read, as they are on disk when this is made.

    Args:
        root: the folder that holds the packages.
    """

    def __init__(self, root: str | Path = ROOT):
        root = Path(root)
        self.modules: dict[str, tuple[str, bytes]] = {}  # by name: the package that it imports relative to, its source
        for name, source in _contents(root, *(f"{package}/**/*.py" for package in PACKAGES)).items():
            package, _, last = _dotted(name).rpartition(".")
            self.modules[package if last == "__init__" else f"{package}.{last}"] = package, source
        self.files = {_dotted(reader): _contents(root, place, f"{place}/**/*") for reader, place in READS.items()}

    def reached(self, names: Iterable[str]) -> set[str]:
        """The modules that importing ``names`` imports, now or when a function is called; other names are ignored.

        >>> sorted(Sources().reached(["gpbook_utils.files.replace_file", "torch"]))
        ['gpbook_utils', 'gpbook_utils.files']
        """
        waiting, found = set(names), set()
        while waiting:
            for name in accumulate(waiting.pop().split("."), "{}.{}".format):  # importing a.b.c imports a and a.b
                if name in self.modules and name not in found:
                    found.add(name)
                    waiting |= _read(*self.modules[name])[1]
        return found

    def hash(self, names: Iterable[str]) -> str:
        """SHA-256, in hexadecimal, of the modules that ``names`` reach and of the files that these read."""
        digest = hashlib.sha256()
        for name in sorted(self.reached(names)):
            digest.update(f"{name}\0{_read(*self.modules[name])[0]}\0".encode())
            for place, content in sorted(self.files.get(name, {}).items()):
                digest.update(f"{place}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()


def imported(code: str) -> set[str]:
    """The names that code may import, in full; of code that is not Python's, all that it could mean.

    >>> sorted(imported("from gpbook_utils import data"))
    ['gpbook_utils', 'gpbook_utils.data']
    """
    try:
        return _imported(ast.parse(code))
    except SyntaxError:  # a cell with a command for IPython
        return mentioned(re.findall(r"\w+(?:\.\w+)*", code))


def mentioned(words: Iterable[str]) -> set[str]:
    """The names of the book's modules that could stand in an import statement of these words.

    >>> sorted(mentioned(["gpbook_utils.machines", "bits"]))
    ['gpbook_utils.machines', 'gpbook_utils.machines.bits']
    """
    words = set(words)
    own = {word for word in words if word.partition(".")[0] in PACKAGES}
    return own | {f"{module}.{word}" for module in own for word in words - own}


def started(text: str) -> set[str]:
    """The names that a text may import if it is run as code or as ``python -m``.

    >>> "gpbook_utils.data" in started("import torch; from gpbook_utils import data")
    True
    >>> started("gpbook_utils computes nothing here")
    set()
    """
    if re.search(r"\bimport\b", text):
        return mentioned(re.findall(r"\w+(?:\.\w+)*", text))
    return {text, f"{text}.__main__"} if re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)+", text) else set()


def _contents(root: Path, *patterns: str) -> dict[str, bytes]:
    """The files below ``root`` of these patterns, by name, but for the litter of editors and file managers."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    contents = {path.relative_to(root).as_posix(): path for path in found if not path.name.startswith(".")}
    return {name: path.read_bytes().replace(b"\r\n", b"\n") for name, path in contents.items()}


def _dotted(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def _imported(tree: ast.AST, package: str = "") -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = importlib.util.resolve_name("." * node.level + module, package)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= started(node.value)
    return names


@cache
def _read(package: str, source: bytes) -> tuple[str, set[str]]:
    """The hash of a module's syntax, and the names that it may import."""
    tree = _WithoutTexts().visit(ast.parse(source))
    return hashlib.sha256(ascii(_plain(tree)).encode()).hexdigest(), _imported(tree, package)


class _WithoutTexts(ast.NodeTransformer):
    """Takes out statements that are nothing but a text, docstrings, and the empty texts that 3.12 sees in f-strings."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        self.generic_visit(node)
        node.values = [part for part in node.values if not isinstance(part, ast.Constant) or part.value]
        return node


def _plain(node):
    """A syntax tree as tuples; fields that are empty are left out, since newer versions of Python have more of them."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return type(node).__name__, *((name, _plain(value)) for name, value in fields)
    return [_plain(value) for value in node] if isinstance(node, list) else node

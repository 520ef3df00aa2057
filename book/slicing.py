"""Which cells of a notebook does a claim need?

A backward slice, found by reading the code and not by running it. A cell is needed if it is a target, if it
only imports or makes settings, or if a needed cell later looks up a name that it binds, or whose object it
changes.

What changes an object: an assignment to its attribute or item, ``+=``, ``del``, a call that stands alone with
the object as receiver or argument (``model.train()``), and wherever it stands a call that changes by its name
(``zero_``, ``fit``). A function of the notebook or of ``gpbook_utils`` is judged by its body instead. The change
reaches the objects from which that one was made, so ``optimiser.step()`` changes the model. Claims, figures
and ``print`` change nothing. *Values* (results of torch and NumPy functions and of arithmetic) are changed
only as receiver or by assignment, so that training on ``x`` doesn't count as a change of ``x``. A seed makes
a cell needed only where that cell binds nothing: elsewhere it belongs to what the cell computes.

Where it doubts, the slice takes the cell. It can still miss one; whoever uses a slice first runs it with the
code as it stands in the chapter, and sees the claims hold.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import symtable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

FRESH = ("torch", "numpy", "math", "gpbook_utils.data", "gpbook_utils.compare", "builtins")
HARMLESS = ("gpbook_utils.claims", "gpbook_utils.plots", "matplotlib", "IPython.display", *FRESH)
ARTIST = re.compile(r"(ax|axes|fig|figure|axis)(_\w+|\d+)?")
SETTING = re.compile(r"(set|use|enable|disable|filter|simplefilter|rc|seterr)")
SEED = re.compile(r"(manual_seed(_all)?|seed)")
# Methods and functions that change their receiver or arguments even where their result is used.
CHANGER = re.compile(
    r"(\w*[^_]_|fit\w*|train\w*|eval|step|backward|initialize|load_state_dict|set_train_data|double|float|half|to|append"
    r"|extend|insert|pop|remove|update|setdefault|clear|sort|shuffle|setattr|delattr|next|normal|standard_normal|uniform"
    r"|permutation|choice|integers|random)"
)
COPY = re.compile(r"deepcopy|copy|clone")  # their result shares nothing with what they copy


def needed(cells: Sequence[str], targets: Iterable[int]) -> list[int]:
    """The indices of the cells to run, in order, so that the cells ``targets`` can run.

    >>> needed(["x = 1", "y = 2", "print(x)"], [2])
    [0, 2]
    """
    effects = read(cells)
    targets = set(targets)
    found: set[int] = set()
    waiting = sorted(targets | {i for i, cell in enumerate(effects) if cell.always and i < max(targets)})
    while waiting:
        i = waiting.pop()
        if i in found:
            continue
        found.add(i)
        for name in effects[i].reads:
            for j in range(i - 1, -1, -1):
                if name in effects[j].binds | effects[j].changes:
                    waiting.append(j)
                if name in effects[j].surely:
                    break
    return sorted(found)


@dataclass(frozen=True)
class Effects:
    """What one cell does to the names of the notebook."""

    reads: frozenset[str] = frozenset()  # looked up, also by the functions it calls
    binds: frozenset[str] = frozenset()
    surely: frozenset[str] = frozenset()  # by a statement that always runs
    changes: frozenset[str] = frozenset()
    always: bool = False  # needed whatever the names say


@dataclass(frozen=True)
class Function:
    """What a call of a function does beyond its result."""

    reads: frozenset[str] = frozenset()  # names of the notebook that it looks up
    changes: frozenset[str] = frozenset()  # of these, what it changes
    changes_arguments: bool = False


@dataclass
class Known:
    """What the cells so far tell about names."""

    origin: dict[str, str] = field(default_factory=dict)  # imported name -> dotted path
    functions: dict[str, Function] = field(default_factory=dict)
    made_from: dict[str, set[str]] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)

    def without(self, names: set[str]) -> Known:
        """A copy for the body of a function, where ``names`` are its own."""
        return Known(
            {k: v for k, v in self.origin.items() if k not in names},
            {k: v for k, v in self.functions.items() if k not in names},
            {k: v for k, v in self.made_from.items() if k not in names},
            self.values - names,
        )

    def function(self, name: str) -> Function | None:
        """What is known of the function that ``name`` refers to."""
        return self.functions.get(name) or _package_function(self.path(name))

    def path(self, dotted: str) -> str:
        """The dotted path behind a name of the notebook: ``torch.randn`` for ``randn`` after its import."""
        root, _, rest = dotted.partition(".")
        known = root in self.made_from or root in self.functions
        default = "builtins." + root if hasattr(builtins, root) and not known else root
        origin = self.origin.get(root, default)
        return f"{origin}.{rest}" if rest else origin


def read(cells: Sequence[str]) -> list[Effects]:
    """What each cell does, in the order of the notebook."""
    known = Known()
    return [_read_cell(cell, known) for cell in cells]


def plain_python(source: str) -> str:
    """A cell as Python without magics; of a cell magic such as ``%%capture`` the body."""
    if source.lstrip().startswith("%%"):
        source = source.lstrip().partition("\n")[2]
    return TransformerManager().transform_cell(source)


def _read_cell(source: str, known: Known) -> Effects:
    source = plain_python(source)
    try:
        tree = ast.parse(source)
        table = symtable.symtable(source, "cell", "exec")
    except (SyntaxError, ValueError):  # another language under a cell magic
        return Effects(always=True)
    binds = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    binds |= _globals(table, assigned=True)
    walk = _Walk(known, {child.get_name(): child for child in table.get_children()})
    for statement in tree.body:
        walk.visit(statement)
    reads = _globals(table) | {s.get_name() for s in table.get_symbols() if s.is_referenced()} | walk.changed
    waiting = list(reads)
    while waiting:  # what the functions that it calls look up
        if function := known.functions.get(waiting.pop()):
            waiting += function.reads - reads
            reads |= function.reads
    imports = {name for name in binds if name in known.origin}
    sets_up = bool(imports) and all(name in imports or hasattr(builtins, name) for name in reads)
    always = sets_up or walk.always or "get_ipython" in reads or (walk.seeds and not binds)
    surely = set().union(*map(_surely, tree.body))
    return Effects(*map(frozenset, (reads, binds, surely, walk.changed)), always)


class _Walk(ast.NodeVisitor):
    """Collects what statements change, and what they tell about the names they bind."""

    def __init__(self, known: Known, tables: dict[str, symtable.SymbolTable], own: Iterable[str] = ()):
        self.known, self.tables, self.own = known, tables, frozenset(own)  # own: the names of this function
        self.changed: set[str] = set()
        self.always = self.seeds = False

    # Names that are bound.
    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.known.origin[alias.asname or alias.name.split(".")[0]] = (
                alias.name if alias.asname else alias.name.split(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.known.origin[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self.bind(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if node.value is not None:
            self.bind(node.target, node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self.bind(node.target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, node.iter)
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        self.generic_visit(node)
        if node.optional_vars is not None:
            self.bind(node.optional_vars, node.context_expr)

    def visit_GeneratorExp(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        """A comprehension: the names it binds are its own, the objects that it changes through them are not."""
        own = {n.id for part in node.generators for n in ast.walk(part.target) if isinstance(n, ast.Name)}
        inner = _Walk(self.known.without(own), {}, self.own | own)
        for part in node.generators:
            inner.bind(part.target, part.iter)
        inner.generic_visit(node)
        self.changed |= inner.changed - own
        self.always |= inner.always
        self.seeds |= inner.seeds

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp

    def bind(self, target: ast.expr, value: ast.expr) -> None:
        for part in ast.walk(target):
            if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
                self.change(_root(part))
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                fresh = self.is_value(value)
                self.known.made_from[part.id] = self.sources(value) - {part.id}
                (self.known.values.add if fresh else self.known.values.discard)(part.id)
                self.known.functions.pop(part.id, None)

    def sources(self, value: ast.expr) -> set[str]:
        """The names whose objects may live on in ``value``: for a function, what it looks up."""
        if isinstance(value, ast.Call) and COPY.fullmatch(_last(value.func)):
            return set()
        names = _names(value)
        for name in names & set(self.known.functions):
            names = names | self.known.functions[name].reads
        known = self.known
        return {n for n in names - set(known.origin) - set(known.functions) if n in known.made_from or n in self.own}

    def is_value(self, node: ast.expr) -> bool:
        """Is this the result of arithmetic or an array function, so that changing it changes nothing else?"""
        match node:
            case ast.Name(id=name):
                return name in self.known.values
            case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
                return self.is_value(inner)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return all(map(self.is_value, parts))
            case ast.Call(func=function):
                path, last = self.known.path(_dotted(function)), _last(function)
                if last.endswith("_") or any(keyword.arg == "requires_grad" for keyword in node.keywords):
                    return False  # a parameter, which an optimiser will change
                if path.startswith(tuple(p + "." for p in FRESH)) and last[:1].islower():
                    return True
                return isinstance(function, ast.Attribute) and self.is_value(function.value)
        return isinstance(node, ast.Constant | ast.BinOp | ast.UnaryOp | ast.Compare | ast.JoinedStr)

    # Functions.
    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        table = self.tables.get(node.name)
        if table is None:  # a method, or a function inside another
            return
        own = {s.get_name() for s in table.get_symbols() if not s.is_global()}
        body = _Walk(self.known.without(own), {}, own)
        for statement in node.body:
            body.visit(statement)
        reads = _globals(table)
        parameters = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        self.known.functions[node.name] = Function(
            frozenset(reads), frozenset(body.changed & reads), bool(body.changed & parameters)
        )

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if table := self.tables.get(node.name):
            self.known.functions[node.name] = Function(frozenset(_globals(table)))

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """What a lambda does happens where it is called."""

    # Objects that are changed.
    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.change(_root(node.target))
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self.change(_root(target))

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.call(node.value, alone=True)
            for child in ast.iter_child_nodes(node.value):
                self.visit(child)
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        self.call(node, alone=False)
        self.generic_visit(node)

    def call(self, node: ast.Call, *, alone: bool) -> None:
        last, root = _last(node.func), _root(node.func)
        if SEED.fullmatch(last):
            self.seeds = True
            return
        path = self.known.path(_dotted(node.func))
        function = self.known.function(_dotted(node.func))
        is_changer = CHANGER.fullmatch(last) is not None
        if function is not None:
            for name in function.changes:
                self.change(name)
        harmless = path.startswith(tuple(p + "." for p in HARMLESS)) or path in ("claim", "display")
        if ARTIST.fullmatch(root) or (harmless and not is_changer):
            self.always |= alone and SETTING.match(last) is not None and not ARTIST.fullmatch(root)
            return
        suspect = alone if function is None else function.changes_arguments  # a function that was read is known
        if not (suspect or is_changer):
            return
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        receiver = {root} if isinstance(node.func, ast.Attribute) and root not in self.known.origin else set()
        objects = set().union(*map(_names, arguments)) - self.known.values - set(self.known.origin)
        for name in receiver | objects:
            self.change(name, backward=last == "backward")
        if alone and function is None and not receiver and not objects:
            self.always = True  # it changes something that no name here tells

    def change(self, name: str, *, backward: bool = False) -> None:
        """The object behind ``name`` changes, and with it the objects it was made from.

        The gradients of ``backward`` reach the objects behind a value too.
        """
        if name:
            self.changed.add(name)
        seen, waiting = {name}, [name]
        while waiting:
            name = waiting.pop()
            if name in self.known.values and not backward:
                continue
            sources = self.known.made_from.get(name, set()) - seen
            seen |= sources
            waiting += sources
            self.changed |= sources - self.known.values


@cache
def _package_function(path: str) -> Function | None:
    """What a function of ``gpbook_utils`` does to its arguments, by the same reading of its module."""
    module, _, name = path.rpartition(".")
    return _package_module(module).get(name) if module.startswith("gpbook_utils.") else None


@cache
def _package_module(module: str) -> dict[str, Function]:
    spec = importlib.util.find_spec(module) if re.fullmatch(r"gpbook_utils\.\w+", module) else None
    if spec is None or not spec.origin:
        return {}
    known, before = Known(), None
    while known.functions != before:  # again, since a function may call one that stands below it
        before = dict(known.functions)
        _read_cell(Path(spec.origin).read_text(encoding="utf-8"), known)
    return {name: replace(f, reads=frozenset(), changes=frozenset()) for name, f in known.functions.items()}


def _globals(table: symtable.SymbolTable, *, assigned: bool = False) -> set[str]:
    """The notebook's names that functions and classes within ``table`` look up, or with ``assigned`` bind."""
    names = set()
    if table.get_type() != "module":
        asked = symtable.Symbol.is_assigned if assigned else symtable.Symbol.is_referenced
        names = {s.get_name() for s in table.get_symbols() if s.is_global() and asked(s)}
    return names.union(*(_globals(child, assigned=assigned) for child in table.get_children()))


def _surely(node: ast.stmt) -> set[str]:
    """The names that a statement binds whatever the data."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name.split(".")[0] for alias in node.names}
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Assign():
            return {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name) and _stored(n)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            return {name}
        case ast.With():
            return set().union(*map(_surely, node.body))
    return set()


def _stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _names(node: ast.expr) -> set[str]:
    """The names in an expression, but for those that only its comprehensions bind."""
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
    return {name.id for name in names} - {name.id for name in names if _stored(name)}


def _root(node: ast.expr) -> str:
    """The name that an expression starts from, ``model`` of ``model(x).mean[0]``; empty if there is none."""
    while not isinstance(node, ast.Name):
        match node:
            case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=inner):
                node = inner
            case _:
                return ""
    return node.id


def _dotted(node: ast.expr) -> str:
    """``torch.linalg.norm`` of such an attribute; empty if a call or an item stands in between."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner, attr=attr):
            return f"{_dotted(inner)}.{attr}" if _dotted(inner) else ""
    return ""


def _last(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""

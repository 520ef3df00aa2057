"""Two trees of modules, walked together: classes, parameters, buffers, constraints, priors and plain attributes.

Nothing here knows a kernel by name, so that a module that nobody has heard of is compared as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel, ScaleKernel
from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.naming import (
    constrained,
    far_apart,
    has_flag,
    kind_of_attribute,
    kind_of_child,
    kind_of_class,
    kind_of_value,
    show,
    show_prior,
)
from gpbook_utils.diagnose.readings import Subject
from gpbook_utils.diagnose.sameness import (
    HOOKS,
    INTERNAL,
    NotCompared,
    close,
    equal,
    is_same,
    rounding_apart,
    same_class,
    same_constraint,
    same_tensor,
    tensor_names,
    tensor_of,
)
from gpbook_utils.diagnose.taking import (
    new_wrapper,
    set_child,
    take_attribute,
    take_both,
    take_child,
    take_class,
    take_prior,
    take_tensor,
)

Change = Callable[[Replica], None]
SIZES = (int, torch.Size, list, tuple)  # ard_num_dims, num_mixtures, grid_sizes
MISSING = object()


@dataclass
class Difference:
    """One thing that two models do not share.

    Attributes:
        cause: a slug of :mod:`gpbook_utils.diagnose.causes`.
        where: dotted path in the models.
        a: what the first model has, in a few words.
        b: what the second model has.
        onto_a: makes a private copy of the first model take the second's.
        onto_b: the reverse.
        order: differences of lower order are taken over first.
        detail: what else is to be said, or empty.
    """

    cause: str
    where: str
    a: str
    b: str
    onto_a: Change
    onto_b: Change
    order: int = 2
    detail: str = ""

    def accompanied(self, change: Callable, p: Any, q: Any, pairs: Any) -> None:
        """Let another change go with this difference, in both directions."""
        forth, back = self.onto_a, self.onto_b

        def onto_a(replica: Replica) -> None:
            forth(replica)
            change(replica, own=p, other=q, pairs=pairs)

        def onto_b(replica: Replica) -> None:
            back(replica)
            change(replica, own=q, other=p, pairs=Swapped(pairs))

        self.onto_a, self.onto_b = onto_a, onto_b


class Swapped:
    """Pairs of modules seen from the other side."""

    def __init__(self, pairs: Any):
        self._pairs = pairs

    def __iter__(self) -> Any:
        return ((q, p, path) for p, q, path in self._pairs)


def joined(cause: str, where: str, members: list[Difference], a: str = "", b: str = "") -> Difference:
    """Several differences that are exchanged as one."""

    def onto_a(replica: Replica) -> None:
        for member in members:
            member.onto_a(replica)

    def onto_b(replica: Replica) -> None:
        for member in members:
            member.onto_b(replica)

    size = f"{len(members)} tensors"
    return Difference(cause, where, a or size, b or size, onto_a, onto_b, max(m.order for m in members))


class Walk:
    """Finds the differences of two models, part by part."""

    def __init__(self, a: Subject, b: Subject):
        self.a, self.b = a, b
        self.found: list[Difference] = []
        self.pairs: list[tuple[nn.Module, nn.Module, str]] = []
        self.seen: set[tuple[int, int]] = set()
        self.close: list[tuple[nn.Module, nn.Module, str]] = []  # tensors that are equal in the coarser format

    def add(
        self, cause: str, where: str, described: Sequence[str], one_way: Callable, p: Any, q: Any, order: int = 2
    ) -> None:
        """``one_way(replica, own, other, pairs)`` makes the copy of ``own`` take over what ``other`` has."""
        forth = functools.partial(one_way, own=p, other=q, pairs=self.pairs)
        back = functools.partial(one_way, own=q, other=p, pairs=Swapped(self.pairs))
        self.found.append(Difference(cause, where, described[0], described[1], forth, back, order))

    # Modules ------------------------------------------------------------------------------------------------------

    def modules(self, p: nn.Module, q: nn.Module, path: str, slot: tuple | None) -> None:
        """Compare two modules that stand at the same place; ``slot`` is (parent of p, parent of q, name)."""
        if (id(p), id(q)) in self.seen or p is q:
            self.pairs.append((p, q, path))
            return
        wrapped = self._wrapped(p, q, path, slot)
        if wrapped is not None:
            self.modules(wrapped[0], wrapped[1], path, None)
            return
        self.seen.add((id(p), id(q)))
        self.pairs.append((p, q, path))
        same = same_class(type(p), type(q))
        if not same:
            cause = kind_of_class(p, q, path, slot is None)
            self.add(cause, path, (type(p).__name__, type(q).__name__), take_class, p, q, order=0)
        if isinstance(p, private.VariationalDistribution) and same:
            self._distribution(p, q, path, slot)
            return
        names, before = tensor_names(p, q), len(self.found)
        self._parameters(p, q, path, names, same)
        shapes = [difference for difference in self.found[before:] if difference.order == 1]
        self._priors(p, q, path)
        if same:
            self._attributes(p, q, path, shapes)
        self._children(p, q, path, same)

    def _wrapped(self, p, q, path, slot):
        """Does one of the two lack a kernel around the other, such as a ScaleKernel?"""
        if slot is None or not (isinstance(p, Kernel) and isinstance(q, Kernel)) or same_class(type(p), type(q)):
            return None
        inner_p, inner_q = (private.modules(side).get("base_kernel") for side in (p, q))
        if inner_q is not None and same_class(type(p), type(inner_q)):
            outer, pair, lacks = q, (p, inner_q), ("no ", "")
        elif inner_p is not None and same_class(type(inner_p), type(q)):
            outer, pair, lacks = p, (inner_p, q), ("", "no ")
        else:
            return None
        name = type(outer).__name__
        detail = f" (outputscale {show(outer.outputscale)})" if isinstance(outer, ScaleKernel) else ""
        described = [lack + name + ("" if lack else detail) for lack in lacks]
        cause = "missing-scale-kernel" if isinstance(outer, ScaleKernel) else "structure"
        parent_p, parent_q, key = slot

        def change(parent, own_outer, own, other_outer, pairs, replica):
            set_child(replica.of(parent), key, new_wrapper(replica, own_outer, own, other_outer, pairs))

        mine = (p, q) if outer is p else (None, None)
        forth = functools.partial(change, parent_p, mine[0], pair[0], None if outer is p else q, self.pairs)
        back = functools.partial(
            change, parent_q, q if outer is q else None, pair[1], p if outer is p else None, Swapped(self.pairs)
        )
        self.found.append(Difference(cause, path, described[0], described[1], forth, back, 0))
        return pair

    def _distribution(self, p, q, path, slot) -> None:
        """q(u) is one thing: its mean, its covariance, and whether they have been initialised."""
        strategies = slot[:2] if slot else (None, None)
        names = [name for name in tensor_names(p, q) if not same_tensor(tensor_of(p, name), tensor_of(q, name))]
        flags = [private.started.name] if slot and all(map(has_flag, strategies)) else []
        flags = [f for f in flags if not torch.equal(*(private.buffers(strategy)[f] for strategy in strategies))]
        # Equal in the coarser of two formats: that is a matter of the format.
        self.close += [(p, q, name) for name in names if close(tensor_of(p, name), tensor_of(q, name))]
        names = [name for name in names if not close(tensor_of(p, name), tensor_of(q, name))]
        plain = [
            name for name in (p.__dict__.keys() | q.__dict__.keys()) - INTERNAL if name != private.mean_init_std.name
        ]
        plain = [name for name in plain if not is_same(p.__dict__.get(name), q.__dict__.get(name))]
        if not names and not flags and not plain:
            return

        def change(replica, own, other, pairs):
            for name in names:
                take_tensor(replica, own[0], other[0], pairs, name=name)
            for name in plain:
                take_attribute(replica, own[0], other[0], pairs, name=name)
            for name in flags:
                take_tensor(replica, own[1], other[1], pairs, name=name)

        described = [
            ", ".join(show(tensor_of(side, name), name) for name in names)
            + ("" if not flags else f", initialised: {bool(private.started(strategy))}")
            for side, strategy in zip((p, q), strategies, strict=True)
        ]
        self.add("variational-distribution", path, described, change, (p, strategies[0]), (q, strategies[1]))

    def _parameters(self, p, q, path, names, same: bool) -> None:
        for name in names:
            u, v = tensor_of(p, name), tensor_of(q, name)
            if name == private.started.name and isinstance(p, private.VariationalStrategy):
                continue
            if not same and (u is None or v is None):
                continue  # the class brings it along
            self._parameter(p, q, f"{path}.{name}" if path else name, name, u, v)

    def _parameter(self, p, q, here: str, name: str, u: Tensor | None, v: Tensor | None) -> None:
        constraints = [private.constraint_of(side, name) for side in (p, q)]
        if not same_constraint(*constraints):
            parts = [name, private.constraint_name(name)]
            described = [constrained(side, name) + f", {c or 'unconstrained'}" for side, c in
                         zip((p, q), constraints, strict=True)]  # fmt: skip
            absent = u is None or v is None
            if absent:
                described = ["absent" if t is None else text for t, text in zip((u, v), described, strict=True)]
            cause = "structure" if absent else "constraint"
            self.add(cause, here, described, functools.partial(take_both, names=parts), p, q, 1 if absent else 2)
        elif not same_tensor(u, v):
            if close(u, v):
                self.close.append((p, q, name))
                return
            if name in private.buffers(p) and rounding_apart(u, v):
                return  # was computed in another order
            cause = kind_of_value(p, q, name, u, v)
            described = [constrained(side, name) for side in (p, q)]
            order = 1 if u is None or v is None or u.shape != v.shape else 2
            self.add(cause, here, described, functools.partial(take_tensor, name=name), p, q, order)
            if u is not None and v is not None and order == 2 and described[0] == described[1]:
                self.found[-1].detail = f"They are apart by {far_apart(u, v):.1e} of their size."

    def _priors(self, p, q, path) -> None:
        mine, others = private.priors(p, {}), private.priors(q, {})
        for name in sorted(mine.keys() | others.keys()):
            u, v = (priors.get(name, (None, None))[:2] for priors in (mine, others))  # a prior, and of what it is
            if not is_same(u, v):
                here = f"{path}.{name}" if path else name
                described = [show_prior(side[0]) for side in (u, v)]
                if is_same(u[0], v[0]):
                    described[1] += ", of another function of the parameters"
                self.add("prior", here, described, functools.partial(take_prior, name=name), p, q)

    def _attributes(self, p, q, path, shapes: list[Difference]) -> None:
        """Plain attributes; the numbers that go with a parameter of another shape are taken over together with it."""
        sizes = []
        tensors = set(tensor_names(p, q))  # a bias that is None is an attribute in one of the two
        for name in sorted((p.__dict__.keys() | q.__dict__.keys()) - INTERNAL - tensors):
            if name.startswith(private.CACHED):
                continue
            u, v = p.__dict__.get(name, MISSING), q.__dict__.get(name, MISSING)
            if name in HOOKS:  # under numbers that are counted through the process
                u, v = (list(value.values()) for value in (u, v))
            here = f"{path}.{name}" if path else name
            if self._hidden_modules(u, v, here):
                continue
            problem = ""
            try:
                if equal(u, v):
                    continue
            except NotCompared as error:
                problem = str(error)
            change = functools.partial(take_attribute, name=name)
            if shapes and all(value is MISSING or value is None or isinstance(value, SIZES) for value in (u, v)):
                for difference in shapes:
                    difference.accompanied(change, p, q, self.pairs)
                sizes.append((name, u, v))
                continue
            cause = "not-compared" if problem else kind_of_attribute(p, name, u, v)
            described = ["absent" if value is MISSING else show(value) for value in (u, v) if not problem]
            described = described or [f"{type(value).__name__}, {problem}" for value in (u, v)]
            self.add(cause, here, described, change, p, q)
        if sizes and len(shapes) > 1:  # one number of mixtures, and so several parameters of another shape
            name, u, v = sizes[0]
            one = joined(shapes[0].cause, path, shapes, f"{name} {show(u)}", f"{name} {show(v)}")
            self.found = [difference for difference in self.found if difference not in shapes] + [one]

    def _hidden_modules(self, u, v, here: str) -> bool:
        """Compare modules in plain attributes and lists; whether the attribute is such a module."""
        if isinstance(u, nn.Module) and isinstance(v, nn.Module):
            if u is not self.a.model:
                self.modules(u, v, here, None)
            return True
        if isinstance(u, list | tuple) and isinstance(v, list | tuple) and len(u) == len(v):
            for index, (s, t) in enumerate(zip(u, v, strict=True)):
                if isinstance(s, nn.Module) and isinstance(t, nn.Module):
                    self.modules(s, t, f"{here}[{index}]", None)
        return False

    def _children(self, p, q, path, same: bool) -> None:
        priors = private.priors(p, {}).keys() | private.priors(q, {}).keys()
        mine, others = private.modules(p), private.modules(q)
        for name in dict.fromkeys((*mine, *others)):
            u, v = mine.get(name), others.get(name)
            if name in priors or isinstance(u, Interval) or isinstance(v, Interval):
                continue
            here = f"{path}.{name}" if path else name
            if u is not None and v is not None:
                self.modules(u, v, here, (p, q, name))
            elif (u is None) != (v is None) and same:
                described = ["absent" if child is None else type(child).__name__ for child in (u, v)]
                self.add(kind_of_child(name), here, described, functools.partial(take_child, name=name), p, q, 0)

"""Rows of the table: caches, modes, settings and random numbers of a call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gpytorch
import torch
from gpytorch.kernels import RFFKernel
from torch import nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import ask, number_of_data, prepared
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import (
    OTHER_SEED,
    Case,
    Effect,
    Experiment,
    Trial,
    beyond_cholesky,
    exact,
    moved,
    reading_after,
    stills,
)
from gpbook_utils.diagnose.guard import changed_settings, seed
from gpbook_utils.diagnose.readings import CALLS, POSTERIOR_OF, Reading, Subject, distance
from gpbook_utils.diagnose.tree import caches_of, modules_of

LIMIT = "gpytorch.settings.max_cholesky_size"


def held_caches(subject: Subject) -> list[str]:
    """Where the model and its likelihood hold filled caches."""
    roots = (subject.model, subject.likelihood)
    return list(dict.fromkeys(path for root in roots for path, _ in caches_of(root)))


def _caches(case: Case) -> Iterator[Trial]:
    held = held_caches(case.subject)
    if not held:
        return
    effect = _stale(case)
    if effect:

        def gone(path: str) -> float:
            def change(replica: Replica) -> None:
                for root in replica.roots:
                    for where, empty in list(caches_of(root)):
                        if where == path:
                            empty()

            reading = reading_after(case.subject, change, keep=True, call=True, only=CALLS)
            return float(sum(min(effect[n], 1e9) - min(distance(n, reading, case.fresh), 1e9) for n in effect))

        where = held[0] if len(held) == 1 else max(held, key=gone)
        yield Trial(where, "cache of an earlier prediction", "computed afresh", effect=effect)


def _stale(case: Case) -> Effect:
    """How far the call with caches is from the call without them, beyond rounding, code paths and random numbers."""
    effect = moved(case.before, case.fresh, case.rounding, CALLS)
    if not effect:
        return {}
    # A cache that was filled with the other gradient mode on has taken another code path: rounding, not a fault.
    with torch.set_grad_enabled(not torch.is_grad_enabled()):
        other = reading_after(case.subject, call=True, only=CALLS)
    if not moved(case.before, other, case.rounding, CALLS):
        return {}
    # Whatever draws random numbers is not stale because it would now draw others.
    again = reading_after(case.subject, call=True, number=OTHER_SEED, only=CALLS)
    return {name: size for name, size in effect.items() if size > 3 * distance(name, case.fresh, again)}


def _modes(case: Case) -> Iterator[Trial]:
    """Does the call, with the modes as they are, answer what it answers in evaluation mode?"""
    modules = dict(modules_of(case.subject.model))
    training = [path for path, module in modules.items() if module.training]
    if not training or getattr(case.subject.model, "train_inputs", ()) is None:
        return
    effect: Effect = {}
    for call, posterior in POSTERIOR_OF.items():
        if posterior in case.fresh.values or posterior in case.fresh.failures:
            size = distance(call, case.fresh, case.fresh.under(call, posterior))
            effect |= {call: size} if size > case.rounding.level(posterior) else {}
    if not effect:
        return
    reached = {id(module) for module in case.subject.model.modules()}
    hidden = [path for path in training if id(modules[path]) not in reached]

    def gone(path: str) -> float:
        def evaluated(replica: Replica) -> None:
            replica.of(modules[path]).eval()

        after = reading_after(case.subject, evaluated, call=True, only=CALLS)
        return -sum(min(distance(c, after, case.fresh.under(c, POSTERIOR_OF[c])), 1e9) for c in effect)

    where = training[0] if case.subject.model.training or len(training) == 1 else max(training[:8], key=gone)
    detail = "model.eval() does not reach it: it stands in a plain attribute." if where in hidden else ""
    yield Trial(where or "training", "training", "evaluation", effect=effect, detail=detail)


def _settings(love: bool) -> Any:
    """The settings that are not at their default: fast_pred_var, or the others."""

    def trials(case: Case) -> Iterator[Trial]:
        for name, fields in changed_settings().items():
            # What the one does is found as cholesky-switch and random-probes; the other changes no number.
            if name in ("max_cholesky_size", "debug") or love != (name == "fast_pred_var"):
                continue
            mine, default = (", ".join(str(pair[i]) for pair in fields.values()) for i in (0, 1))
            yield Trial(f"gpytorch.settings.{name}", mine, default, under=(at_default(fields),), call=True)

    return trials


@contextlib.contextmanager
def at_default(fields: dict[tuple[type, str], tuple[object, object]]) -> Iterator[None]:
    """A setting at its default."""
    for (cls, name), (_, default) in fields.items():
        setattr(cls, name, default)
    try:
        yield
    finally:
        for (cls, name), (value, _) in fields.items():
            setattr(cls, name, value)


def _low_rank(case: Case) -> Iterator[Trial]:
    if gpytorch.settings.fast_pred_var.on():
        yield Trial("gpytorch.settings.fast_pred_var", "on", "off", under=(gpytorch.settings.fast_pred_var(False),))


def _limit(case: Case, **how: Any) -> Iterator[Trial]:
    if beyond_cholesky(case.subject):
        limit, n = gpytorch.settings.max_cholesky_size.value(), number_of_data(case.subject.model)
        yield Trial(LIMIT, f"{limit}, and {n} points", "Cholesky", **how)


def _probes(case: Case) -> Iterator[Trial]:
    return _limit(case, under=exact())


def _iterations(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """How far the answer is from that of Cholesky, beyond max_cholesky_size."""
    if gpytorch.settings.fast_pred_var.on():  # a finding of its own
        with gpytorch.settings.fast_pred_var(False):
            base = reading_after(case.subject)
    return moved(base, case.calm, case.rounding) or None


def _zeroed(name: str, text: str, drawn: Callable[[Any], Any]) -> Callable[[Case], Iterator[Trial]]:
    """An attribute by which modules draw random numbers, set to zero in those that do."""

    def trials(case: Case) -> Iterator[Trial]:
        found = [(path, module) for path, module in modules_of(case.subject.model) if drawn(module)]

        def quiet(replica: Replica) -> None:
            for _, module in found:
                setattr(replica.of(module), name, 0.0)

        if found:
            path, module = found[0]
            yield Trial(path, f"{text} {getattr(module, name):g}", f"{text.split(', ')[-1]} 0", change=quiet)

    return trials


def _features(case: Case) -> Iterator[Trial]:
    """Random features that the first call draws."""
    lazy = [
        path
        for path, module in modules_of(case.subject.model)
        if isinstance(module, RFFKernel) and private.random_weights(module, None) is None
    ]

    def drawn_before(replica: Replica) -> None:
        seed(0)
        model = replica.roots[0]
        with contextlib.suppress(Exception):
            model.forward(*prepared(model, case.subject.inputs)).covariance_matrix.sum()

    if lazy:
        yield Trial(lazy[0], "drawn at the first call", "none", change=drawn_before)


def _any_draw(case: Case) -> Iterator[Trial]:
    yield Trial("", "random numbers in the call", "none")


def _train_and_back(case: Case) -> Iterator[Trial]:
    """Buffers that a call in training mode would fill anew, of modules that are no layers which average."""
    model = case.subject.model
    buffers = {
        f"{path}.{name}" if path else name: (module, name, buffer)
        for path, module in modules_of(model)
        for name, buffer in private.buffers(module).items()
        if buffer is not None and type(module).__module__.partition(".")[0] not in ("torch", "gpytorch", "botorch")
    }
    inputs = getattr(model, "train_inputs", None) or case.subject.inputs
    changed: list[str] = []

    def called(replica: Replica) -> None:
        copy, restored = replica.roots[0], _layers(replica.roots[0])
        with contextlib.suppress(Exception), torch.no_grad(), gpytorch.settings.debug(False):
            copy.train()
            ask(copy, inputs)
        copy.eval()
        for buffer, value in restored:
            buffer.data.copy_(value)
        for path, (module, name, old) in buffers.items():
            new = private.buffers(replica.of(module)).get(name)
            changed.extend([path] * (new is not None and not torch.equal(new.nan_to_num(), old.nan_to_num())))

    if buffers:
        trial = Trial("", "stale", "filled anew by a call in training mode", change=called)
        effect = moved(case.calm, case.read(trial), case.rounding)
        if effect and changed:
            yield replace(trial, where=changed[0], effect=effect)


def _layers(model: nn.Module) -> list[tuple[Any, Any]]:
    """The buffers of torch's layers, such as running means, with their values."""
    own = [m for _, m in modules_of(model) if type(m).__module__.startswith("torch.")]
    return [(b, b.clone()) for m in own for b in private.buffers(m).values() if b is not None]


_RANDOM = ("love", "random-probes", "random-initialisation", "random-features", "random-call")
_DROPOUT = _zeroed("p", "dropout p", lambda module: isinstance(module, private.Dropout) and module.p)
_UNDRAWN = _zeroed(
    private.mean_init_std.name,
    "not initialised, mean_init_std",
    lambda module: (
        private.mean_init_std(module, None) is not None and hasattr(module, "initialize_variational_distribution")
    ),
)
STALE = (Experiment("stale-cache", _caches),)
RANDOM = (
    Experiment("love", _low_rank, stills),
    Experiment("random-probes", _probes, stills, unless=_RANDOM),
    Experiment("random-initialisation", _UNDRAWN, stills, unless=_RANDOM),
    Experiment("random-features", _features, stills, unless=_RANDOM),
    Experiment("random-call", _DROPOUT, stills, unless=_RANDOM),
    Experiment("random-call", _any_draw, stills, unless=_RANDOM),
)
ITERATED = (Experiment("cholesky-switch", _limit, _iterations),)
CALLED = (
    Experiment("mode", _modes),
    *RANDOM,
    Experiment("love", _settings(True)),
    Experiment("setting", _settings(False)),
    *ITERATED,
)
FILLED = (Experiment("stale-buffer", _train_and_back, settled=True),)

"""Experiments on one model: what changes when a cache is dropped, a seed or a setting changed, a row left out?

Each returns findings. All work on private copies, inside :func:`gpbook_utils.diagnose.guard.undisturbed`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import gpytorch
import torch
from gpytorch.kernels import AdditiveKernel, ProductKernel, RFFKernel
from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.guard import changed_settings, seed
from gpbook_utils.diagnose.readings import (
    CALLS,
    COVARIANCE,
    MEAN,
    POSTERIOR_OF,
    PRIOR,
    Reading,
    Rounding,
    Subject,
    caches_of,
    distance,
    drop_caches,
    dtype_of,
    far_out,
    modules_of,
    names,
    number_of_data,
    read,
)
from gpbook_utils.diagnose.report import Finding

VISIBLE = 1e-4  # relative: where a fault has no other model to compare with, what nobody would see is not reported
SLIGHT = 1e-6  # relative: a square root near zero makes 1e-8 of one rounding in float64, which is nobody's fault
OTHER_SEED = 20_011


def moved(before: Reading, after: Reading, rounding: Rounding, only=None, least: float = 0.0) -> dict[str, float]:
    """The quantities that two readings do not share beyond rounding, and how far they are apart."""
    sizes = {name: distance(name, before, after) for name in only or names(after)}
    return {name: size for name, size in sizes.items() if size > max(least, rounding.levels.get(name, 0.0))}


def reading_after(
    subject: Subject,
    change: Callable[[Replica], None] | None = None,
    *,
    keep: bool = False,
    call: bool = False,
    number: int = 0,
    only=None,
) -> Reading:
    """A reading of a private copy; its caches are dropped unless ``keep``, then ``change`` is applied."""
    replica = subject.replica()
    if not keep:
        drop_caches(*replica.roots)
    if change is not None:
        change(replica)
    return read(subject, *replica.roots, call=call, number=number, only=only)


def stale_caches(subject: Subject, before: Reading, rounding: Rounding) -> tuple[list[Finding], Reading]:
    """Do caches change the answer? Also returns the reading without them."""
    held = [path for root in (subject.model, subject.likelihood) for path, _ in caches_of(root)]
    if not held:
        return [], before
    fresh = reading_after(subject, call=True)
    effect = moved(before, fresh, rounding, CALLS)
    if not effect:
        return [], fresh
    # A cache that was filled with the other gradient mode on has taken another code path: rounding, not a fault.
    with torch.set_grad_enabled(not torch.is_grad_enabled()):
        other = reading_after(subject, call=True, only=CALLS)
    if not moved(before, other, rounding, CALLS):
        return [], fresh
    # Whatever draws random numbers is not stale because it would now draw others.
    again = reading_after(subject, call=True, number=OTHER_SEED, only=CALLS)
    noise = {name: distance(name, fresh, again) for name in effect}
    effect = {name: size for name, size in effect.items() if size > 3 * noise[name]}
    if not effect:
        return [], fresh

    def gone(path: str) -> float:
        def change(replica: Replica) -> None:
            for root in replica.roots:
                for where, empty in list(caches_of(root)):
                    if where == path:
                        empty()

        reading = reading_after(subject, change, keep=True, call=True, only=CALLS)
        return sum(min(effect[name], 1e9) - min(distance(name, reading, fresh), 1e9) for name in effect)

    where = max(dict.fromkeys(held), key=gone)
    return [Finding("stale-cache", where, "cache of an earlier prediction", "computed afresh", effect)], fresh


def randomness(subject: Subject, fresh: Reading, rounding: Rounding, calm: Reading) -> list[Finding]:
    """Does a second call on the same model, with other random numbers, give something else, and what draws them?

    ``calm`` is the reading under :func:`settled`.
    """
    effect = moved(fresh, reading_after(subject, number=OTHER_SEED), rounding)
    if not effect:
        return []

    def still(*contexts, change=None, first=None) -> bool:
        with contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            if first is None:
                first = reading_after(subject, change, only=[*effect])
            left = moved(first, reading_after(subject, change, number=OTHER_SEED, only=[*effect]), rounding, effect)
        return any(size > 0.5 * left.get(name, 0.0) and name in left for name, size in effect.items())

    cause, where, a, b = "random-call", "", "random numbers in the call", "none"
    n = number_of_data(subject.model)
    if gpytorch.settings.fast_pred_var.on() and not still(gpytorch.settings.fast_pred_var(False)):
        cause, where, a, b = "love", "gpytorch.settings.fast_pred_var", "on", "off"
    elif n > gpytorch.settings.max_cholesky_size.value() and not still(*exact(), first=calm):
        limit = gpytorch.settings.max_cholesky_size.value()
        cause, where = "random-probes", "gpytorch.settings.max_cholesky_size"
        a, b = f"{limit}, and {n} points", "Cholesky"
    else:
        drawn = [
            (path, module)
            for path, module in modules_of(subject.model)
            if private.mean_init_std(module, None) is not None
            and hasattr(module, "initialize_variational_distribution")
        ]

        def quiet(replica: Replica) -> None:
            for _, module in drawn:
                replica.of(module).mean_init_std = 0.0

        if drawn and not still(change=quiet):
            path, module = drawn[0]
            cause, where = "random-initialisation", path
            a, b = f"not initialised, mean_init_std {private.mean_init_std(module):g}", "mean_init_std 0"
        else:
            dropped = [(path, m) for path, m in modules_of(subject.model) if isinstance(m, private.Dropout) and m.p]

            def undropped(replica: Replica) -> None:
                for _, module in dropped:
                    replica.of(module).p = 0.0

            lazy = [
                path for path, module in modules_of(subject.model)
                if isinstance(module, RFFKernel) and private.random_weights(module, None) is None
            ]  # fmt: skip

            def drawn_before(replica: Replica) -> None:
                seed(0)
                with contextlib.suppress(Exception):
                    replica.roots[0].forward(*subject.inputs).covariance_matrix.sum()

            if lazy and not still(change=drawn_before):
                cause, where, a = "random-features", lazy[0], "drawn at the first call"
            elif dropped and not still(change=undropped):
                path, module = dropped[0]
                where, a, b = path, f"dropout p {module.p:g}", "dropout p 0"
    return [Finding(cause, where, a, b, effect)]


def exact() -> tuple:
    """The settings with which everything is computed by Cholesky, whatever the size."""
    return (
        gpytorch.settings.max_cholesky_size(10**9),
        gpytorch.settings.fast_computations(False, False, False),
        gpytorch.settings.fast_pred_var(False),
    )


@contextlib.contextmanager
def settled(*subjects: Subject) -> Iterator[None]:
    """Beyond max_cholesky_size everything by Cholesky: an iteration that stops early makes steps of every rounding."""
    with contextlib.ExitStack() as stack:
        if any(number_of_data(side.model) > gpytorch.settings.max_cholesky_size.value() for side in subjects):
            for context in exact():
                stack.enter_context(context)
        yield


def cholesky_switch(subject: Subject, fresh: Reading, rounding: Rounding, calm: Reading) -> list[Finding]:
    """Beyond max_cholesky_size: how far is the answer from that of Cholesky, which is ``calm``?"""
    n, limit = number_of_data(subject.model), gpytorch.settings.max_cholesky_size.value()
    if n <= limit:
        return []
    if gpytorch.settings.fast_pred_var.on():  # a finding of its own
        with gpytorch.settings.fast_pred_var(False):
            fresh = reading_after(subject)
    effect = moved(fresh, calm, rounding)
    if not effect:
        return []
    where = "gpytorch.settings.max_cholesky_size"
    return [Finding("cholesky-switch", where, f"{limit}, and {n} points", "Cholesky", effect)]


def settings(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Each setting that is not at its default: what happens at the default?"""
    found = []
    for name, fields in changed_settings().items():
        if name == "max_cholesky_size":
            continue  # what it does is found as cholesky-switch and random-probes
        for (cls, field), (_, default) in fields.items():
            setattr(cls, field, default)
        try:
            effect = moved(fresh, reading_after(subject, call=True), rounding)
        finally:
            for (cls, field), (value, _) in fields.items():
                setattr(cls, field, value)
        if effect:
            shown = [", ".join(str(pair[i]) for pair in fields.values()) for i in (0, 1)]
            cause = "love" if name == "fast_pred_var" else "setting"
            found.append(Finding(cause, f"gpytorch.settings.{name}", *shown, effect))
    return found


def mode(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Does the call, with the modes as they are, answer what it answers in evaluation mode?"""
    training = [path for path, module in modules_of(subject.model) if module.training]
    if not training or getattr(subject.model, "train_inputs", ()) is None:
        return []
    effect = {}
    for call, posterior in POSTERIOR_OF.items():
        if posterior not in fresh.values and posterior not in fresh.failures:
            continue
        pair = [Reading({call: r.values[n]} if n in r.values else {}) for r, n in ((fresh, call), (fresh, posterior))]
        size = distance(call, *pair)
        if size > rounding.levels.get(posterior, 0.0):
            effect[call] = size
    if not effect:
        return []

    def gone(path: str) -> float:
        modules = dict(modules_of(subject.model))
        after = reading_after(subject, lambda replica: replica.of(modules[path]).eval(), call=True)
        left = [distance(call, after, Reading({call: fresh.values[POSTERIOR_OF[call]]})) for call in effect
                if POSTERIOR_OF[call] in fresh.values]  # fmt: skip
        return -sum(min(size, 1e9) for size in left)

    where = training[0] if subject.model.training or len(training) == 1 else max(training[:8], key=gone)
    return [Finding("mode", where or "training", "training", "evaluation", effect)]


def target_shape(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Have the targets the shape of the prior at the training inputs?"""
    model = subject.model
    targets, inputs = getattr(model, "train_targets", None), getattr(model, "train_inputs", None)
    if targets is None or not inputs:
        return []
    copy = subject.replica().roots[0]
    drop_caches(copy)
    try:
        with gpytorch.settings.debug(False):
            wanted = tuple(copy.train().forward(*copy.train_inputs).mean.shape)
    except Exception:
        return []
    came = tuple(targets.shape)
    if came == wanted or came != (*wanted, 1):
        return []

    def squeeze(replica: Replica) -> None:
        replica.of(model).train_targets = replica.of(model).train_targets.squeeze(-1)

    effect = moved(fresh, reading_after(subject, squeeze), rounding)
    return [Finding("target-shape", "train_targets", f"shape {came}", f"shape {wanted}", effect)]


def no_data(subject: Subject) -> list[Finding]:
    """An exact GP without training data answers with its prior."""
    if not isinstance(subject.model, gpytorch.models.ExactGP) or subject.model.train_inputs is not None:
        return []
    return [Finding("no-training-data", "train_inputs", "none", "", {})]


def not_finite(subject: Subject, fresh: Reading) -> list[Finding]:
    """NaN or infinite parameters and data, where what the model says is not finite either.

    A raw noise of minus infinity alone is not a finding: it is how GPyTorch stores a noise that is set to its bound.
    """
    masked = gpytorch.settings.observation_nan_policy.value() != "ignore"
    broken = [name for name, value in fresh.values.items() if not torch.isfinite(value).all()]
    if not broken and not fresh.failures:
        return []
    places: list[tuple[str, Tensor]] = [*_tensors(subject.model, subject.likelihood).items()]
    found, seen = [], set()
    for where, tensor in places:
        bounds = where.endswith(("lower_bound", "upper_bound"))
        if bounds or id(tensor) in seen or not tensor.is_floating_point() or (masked and where == "train_targets"):
            continue
        seen.add(id(tensor))
        bad = int((~torch.isfinite(tensor.detach())).sum())
        if bad:
            text = f"{bad} of {tensor.numel()} entries"
            found.append(Finding("not-finite", where, text, "finite", dict.fromkeys(broken or [MEAN], math.inf)))
    return found


def mixed_dtype(subject: Subject, fresh: Reading) -> list[Finding]:
    """Parameters and data in several formats: does the call work, or change, when all are in the finest?"""
    tensors = {f"{path}": p for path, p in subject.model.named_parameters()}
    for tensor in getattr(subject.model, "train_inputs", None) or ():
        tensors["train_inputs"] = tensor
    targets = getattr(subject.model, "train_targets", None)
    tensors |= {"train_targets": targets} if targets is not None else {}
    by_dtype: dict[torch.dtype, list[str]] = {}
    for path, tensor in tensors.items():
        if tensor.is_floating_point():
            by_dtype.setdefault(tensor.dtype, []).append(path)
    if len(by_dtype) < 2:
        return []
    few = min(by_dtype.values(), key=len)

    def cast(replica: Replica) -> None:
        for root in replica.roots:
            if root is not None:
                root.to(min(by_dtype, key=lambda dtype: torch.finfo(dtype).eps))

    after = reading_after(subject, cast)
    sizes = {name: distance(name, fresh, after) for name in names(after)}
    effect = {name: size for name, size in sizes.items() if size > 0}
    if not effect:
        return []
    listed = "; ".join(f"{str(d).removeprefix('torch.')}: {len(paths)} tensors" for d, paths in by_dtype.items())
    return [Finding("mixed-dtype", few[0], listed, "one format", effect)]


# Memory -------------------------------------------------------------------------------------------------------------


def _memory(tensor: Tensor) -> tuple[int, int, int] | None:
    """Storage, first and last byte; none for an empty tensor or one without plain storage."""
    if tensor.layout != torch.strided or not tensor.numel():
        return None
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    first = tensor.storage_offset() * tensor.itemsize
    return private.address(tensor.untyped_storage()), first, first + (reach + 1) * tensor.itemsize


def _overlap(s: Tensor, t: Tensor) -> bool:
    a, b = _memory(s), _memory(t)
    if a is None or b is None or s.data_ptr() == 0:
        return False
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _trainable(*roots) -> dict[str, nn.Parameter]:
    found, seen = {}, set()
    for prefix, root in zip(("", "likelihood"), roots, strict=True):
        for path, module in modules_of(root):
            for name, parameter in private.parameters(module).items():
                if parameter is not None and parameter.requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    found[".".join(filter(None, (prefix, path, name)))] = parameter
    return found


def _tensors(*roots) -> dict[str, Tensor]:
    found: dict[str, Tensor] = dict(_trainable(*roots))
    for root in roots:
        for path, module in modules_of(root):
            prefix = f"{path}." if path else ""
            own = (*private.parameters(module).items(), *private.buffers(module).items())
            found |= {prefix + name: t for name, t in own if t is not None}
        inputs, targets = getattr(root, "train_inputs", None), getattr(root, "train_targets", None)
        found |= {f"train_inputs[{i}]": t for i, t in enumerate(inputs or ())}
        found |= {"train_targets": targets} if targets is not None else {}
    return found


def shared_between(a: Subject, b: Subject, fresh_b: Reading, rounding: Rounding) -> list[Finding]:
    """Do two models share memory that training one of them would change? If so, what does that do to the other?"""
    own = _trainable(a.model, a.likelihood)
    others = _tensors(b.model, b.likelihood)
    shared = {path: p for path, p in own.items() if any(_overlap(p, t) for t in others.values())}
    if not shared:
        return []
    joint = Replica((a.model, a.likelihood, b.model, b.likelihood))
    _, _, model, likelihood = joint.roots[0]
    drop_caches(model, likelihood)
    with torch.no_grad():
        for parameter in shared.values():
            copy = joint.of(parameter)
            copy.add_(0.01 * (1 + copy.abs()))
    effect = moved(fresh_b, read(b, model, likelihood, call=False), rounding)
    where = _common(list(shared), a)
    detail = (
        f"{len(shared)} of {len(own)} trainable parameters of model_a are shared; "
        "the effect is that of changing them by a hundredth."
    )
    return [Finding("shared-parameters", where, "the same object", "the same object", effect, detail)]


def _common(paths: list[str], subject: Subject) -> str:
    """The path of the smallest module that holds all of them, or the path itself."""
    if len(paths) == 1:
        parts = paths[0].split(".")
        return ".".join(parts[:-1]) if parts[-1].startswith("raw_") and len(parts) > 1 else paths[0]
    split = [path.split(".") for path in paths]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common) or ", ".join(dict.fromkeys(parts[0] for parts in split))


def shared_memory(subject: Subject, rounding: Rounding) -> list[Finding]:
    """Would training the model move its data, x, or two of its parameters together?"""
    own = _trainable(subject.model, subject.likelihood)
    data: dict[str, Tensor] = {"x": subject.inputs[0]} if subject.inputs else {}
    inputs, targets = getattr(subject.model, "train_inputs", None), getattr(subject.model, "train_targets", None)
    for tensor in inputs or ():
        data["train_inputs"] = tensor
    data |= {"train_targets": targets} if targets is not None else {}
    found = []
    for path, parameter in own.items():
        hit = [name for name, tensor in data.items() if _overlap(parameter, tensor)]
        if not hit:
            continue
        joint = Replica((subject.model, subject.likelihood, *data.values(), parameter))
        with torch.no_grad():
            joint.of(parameter).add_(0.01 * (1 + joint.of(parameter).abs()))
            copies = {name: joint.of(data[name]) for name in hit}
            sizes = {name: _relative(data[name], copy) for name, copy in copies.items()}
        detail = "Changing the parameter by a hundredth moves " + ", ".join(
            f"{name} by {size:.1e} (relative)" for name, size in sizes.items()
        ) + "."  # fmt: skip
        found.append(Finding("shared-with-data", path, f"memory of {', '.join(hit)}", "its own memory", sizes, detail))
    for module_path, module in modules_of(subject.model):
        if isinstance(module, AdditiveKernel | ProductKernel):
            kernels = list(module.kernels)
            twice = [k for i, k in enumerate(kernels) if any(k is other for other in kernels[:i])]
            if twice and any(p.requires_grad for p in twice[0].parameters()):
                where = f"{module_path}.kernels" if module_path else "kernels"
                found.append(Finding("shared-within-model", where, f"one {type(twice[0]).__name__} twice", "two", {}))
    paths = list(own)
    for i, path in enumerate(paths):
        parameter = own[path]
        mates = [other for other in paths[:i] if _overlap(parameter, own[other])]
        if mates or _overlaps_itself(parameter):
            what = f"memory of {mates[0]}" if mates else "entries that are one number in memory"
            found.append(Finding("shared-within-model", path, what, "its own memory", {}))
    return found


def _overlaps_itself(tensor: Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / a.norm().clamp_min(torch.finfo(torch.float64).tiny))


# Numbers ------------------------------------------------------------------------------------------------------------


def grad_mode(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Is the answer under torch.no_grad() another than with gradients?"""
    on = torch.is_grad_enabled()
    with torch.set_grad_enabled(not on):
        effect = moved(fresh, reading_after(subject), rounding, least=SLIGHT)
    described = ["gradients on", "torch.no_grad()"] if on else ["torch.no_grad()", "gradients on"]
    return [Finding("grad-mode", "torch.no_grad", *described, effect)] if effect else []


def batch_dependence(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Are the rows in the middle of x answered alike without the others?"""
    x = subject.inputs[0]
    m = x.shape[-2]
    if m < 2 or MEAN not in fresh.values:
        return []
    far = far_out(x)
    kept = far.argsort()[: max(1, m // 2)].sort().values
    parts = tuple(part[..., kept.to(part.device), :] for part in subject.inputs)
    fewer = Subject(subject.name, subject.model, subject.likelihood, parts)
    replica = fewer.replica()
    drop_caches(*replica.roots)
    alone = read(fewer, *replica.roots, call=False, only=(PRIOR, MEAN, COVARIANCE))
    block = Reading()
    for name in (PRIOR, MEAN, COVARIANCE):
        if name not in fresh.values or name not in alone.values:
            continue
        value = fresh.values[name]
        tasks = value.shape[-1] // m
        if tasks * m != value.shape[-1] or alone.values[name].shape[-1] != tasks * len(kept):
            continue
        rows = (kept.unsqueeze(-1) * tasks + torch.arange(tasks)).flatten()
        block.values[name] = value[..., rows] if name == MEAN else value[..., rows, :][..., rows]
    apart = Reading({name: alone.values[name] for name in block.values})
    effect = moved(block, apart, rounding, list(block.values), least=SLIGHT)
    if not effect:
        return []
    farthest = int(far.argmax() if subject.rows is None else subject.rows[far.argmax()])
    return [Finding("batch-dependence", f"x[{farthest}]", f"{m} rows in one call", f"{len(kept)} rows", effect)]


def resolution(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Is one unit in the last place of the inputs seen in the prior covariance?"""
    generator = torch.Generator().manual_seed(0)

    def nudged(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        signs = 2.0 * torch.randint(0, 2, tensor.shape, generator=generator) - 1
        return tensor * (1 + signs.to(tensor) * torch.finfo(tensor.dtype).eps)

    moved_x = Subject(subject.name, subject.model, subject.likelihood, tuple(map(nudged, subject.inputs)))
    replica = moved_x.replica()
    drop_caches(*replica.roots)
    size = distance(PRIOR, fresh, read(moved_x, *replica.roots, call=False, only=(PRIOR,)))
    if not VISIBLE < size < math.inf:
        return []
    largest = float(subject.inputs[0].abs().max())
    return [Finding("far-from-origin", "x", f"entries up to {largest:.3g}", "centred inputs", {PRIOR: size})]


def jitter(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Was jitter added to a failed factorisation, and does the jitter of a variational strategy show?"""
    found = []
    added = [text for warning in fresh.warnings if "added jitter" in (text := str(warning.message))]
    if added:
        old = [gpytorch.settings.cholesky_jitter.value(dtype) for dtype in (torch.float32, torch.float64)]
        with gpytorch.settings.cholesky_jitter(10 * old[0], 10 * old[1]):
            effect = moved(fresh, reading_after(subject), rounding)
        found.append(Finding("jitter-added", "gpytorch.settings.cholesky_jitter", added[0][:60], "no jitter", effect))
    for path, module in modules_of(subject.model):
        initialised = private.started(module, None)
        if not private.jitter_value.held_by(module) or not initialised:
            continue  # no strategy, or one whose q(u) is still to be drawn
        value = module.jitter_val

        def less(replica: Replica, module=module, value=value) -> None:
            replica.of(module).jitter_val = value / 10

        after = reading_after(subject, less, only=(MEAN, COVARIANCE))
        effect = moved(fresh, after, rounding, (MEAN, COVARIANCE), least=1e-2)
        if COVARIANCE in effect and PRIOR in fresh.values and COVARIANCE in after.values:
            # Against the prior: where next to nothing is left of it, that may well be jitter.
            gap = (after.values[COVARIANCE] - fresh.values[COVARIANCE]).norm()
            if float(gap) < 1e-2 * float(fresh.values[PRIOR].norm()):
                del effect[COVARIANCE]
        effect = {name: size for name, size in effect.items() if not math.isinf(size)}
        if effect:
            found.append(Finding("jitter", f"{path}.jitter_val", f"{value:g}", f"{value / 10:g}", effect))
    return found


def clamped(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Are variances raised to the floor, while the covariance matrix has smaller ones?"""
    covariance = fresh.values.get(COVARIANCE)
    if covariance is None or gpytorch.settings.skip_posterior_variances.on():
        return []
    floor = gpytorch.settings.min_variance.value(dtype_of(subject.model))
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    below = diagonal < floor
    if not below.any() or not torch.isfinite(diagonal).all():
        return []
    size = float((diagonal.clamp_min(floor) - diagonal).norm() / diagonal.norm().clamp_min(floor))
    if size <= VISIBLE:
        return []
    text = f"{int(below.sum())} of {diagonal.numel()} below {floor:g}, least {float(diagonal.min()):.2g}"
    return [Finding("variance-clamped", "gpytorch.settings.min_variance", text, "as computed", {"variance": size})]


def hidden_state(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Tensors and modules in plain attributes of the reader's own classes: do they change the answer?"""
    registered = {
        id(module) for root in (subject.model, subject.likelihood) if root is not None for module in root.modules()
    }
    found = []
    for path, module in modules_of(subject.model):
        prefix = f"{path}." if path else ""
        if id(module) not in registered and next(module.parameters(), None) is not None:
            tensors = {"": list(module.parameters())}
        elif (
            type(module).__module__.startswith(("gpytorch.", "torch.", "linear_operator."))
            or id(module) not in registered
        ):
            continue
        else:
            tensors = {
                name: [value]
                for name, value in module.__dict__.items()
                if isinstance(value, Tensor) and value.is_floating_point() and not private.is_data(name)
            }
        for name, values in tensors.items():

            def shift(replica: Replica, values=values) -> None:
                with torch.no_grad():
                    for value in values:
                        replica.of(value).add_(0.01 * (1 + replica.of(value).abs()))

            effect = moved(fresh, reading_after(subject, shift), rounding)
            if effect:
                where = prefix + name if name else path
                found.append(Finding("state-outside-state-dict", where, "a plain attribute", "registered", effect))
    return found


def rounded_floats(subject: Subject, fresh: Reading, rounding: Rounding) -> list[Finding]:
    """Parameters of a float64 model that hold a short decimal as float32 has it."""
    found = []
    for root, prefix in ((subject.model, ""), (subject.likelihood, "likelihood.")):
        for path, module in modules_of(root):
            for name, parameter in private.parameters(module).items():
                if parameter is None or parameter.dtype != torch.float64 or parameter.numel() != 1:
                    continue
                constraint = private.constraint_of(module, name)
                value = parameter.detach() if constraint is None else constraint.transform(parameter.detach())
                number = float(value)
                short = float(f"{number:.6g}")
                single = float(torch.tensor(short, dtype=torch.float32))
                if (
                    short == single
                    or abs(number - single) > 1e-14 * abs(single)
                    or any(f.a == _digits(number) for f in found)
                ):
                    continue

                def mend(replica: Replica, parameter=parameter, constraint=constraint, short=short) -> None:
                    target = torch.full_like(parameter.detach(), short)
                    raw = target if constraint is None else constraint.inverse_transform(target)
                    replica.of(parameter).data.copy_(raw)

                effect = moved(fresh, reading_after(subject, mend), rounding)
                if effect:
                    where = f"{prefix}{path}.{name}" if path else prefix + name
                    found.append(Finding("rounded-float", where, _digits(number), _digits(short), effect))
    return found


def _digits(number: float) -> str:
    return f"{number:.17g}"

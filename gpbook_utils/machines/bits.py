"""A fixed set of computations, on this machine or in an environment of another kind, and the bits of its results.

Every input comes from NumPy's generator or from a table of this package, so that inputs have the same bits on every
machine and only the computing differs. ``python -m gpbook_utils.machines.bits`` prints the hashes of the results.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpbook_utils import arguments, data
from gpbook_utils.machines import machine
from gpbook_utils.models import ExactModel, marginal_likelihood, posterior, prior_covariance

NOISES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # variances; the condition number of K + noise·I grows as they fall
LENGTHSCALE = 0.25  # in years
# Names what is computed: only hashes of one edition can be compared. Give it another value when a change moves any
# result of `computations` (a test tells), then run tests/golden_bits.py and record each of your environments anew.
EDITION = "75aeb340"
FORMATS = {"float32": torch.float32, "float64": torch.float64}


def model(dtype: torch.dtype, noise: float = 0.1, step: int = 4, device: str = "cpu") -> ExactModel:
    """An exact GP of Seattle's temperatures, every ``step``-th day of four years, with an RBF kernel.

    Raises:
        ValueError: if ``noise`` is not positive or ``step`` is less than one.

    >>> model(torch.float64).train_targets.shape
    torch.Size([366])
    """
    if not noise > 0 or step < 1:
        raise ValueError(f"noise must be positive and step at least 1; got noise={noise} and step={step}")
    table = data.load("seattle")
    gp = ExactModel(table.x[::step].to(device, dtype), table.standardised[::step].to(device, dtype))
    gp.covar_module.lengthscale = torch.tensor(LENGTHSCALE, dtype=dtype, device=device)
    gp.likelihood.noise = torch.tensor(noise, dtype=dtype, device=device)
    return gp


def descend(gp: ExactModel, steps: int = 30, rate: float = 0.3) -> Tensor:
    """The raw parameters of an exact GP after plain gradient descent, of shape (number of parameters,).

    Not Adam: torch's optimisers take longer to import than all the rest takes to compute.
    """
    parameters = list(gp.parameters())
    for _ in range(steps):
        gradients = torch.autograd.grad(marginal_likelihood(gp), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter += rate * gradient
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def computations(device: str = "cpu") -> dict[str, Tensor]:
    """Random draws, elementary operations, and a GP in two formats at five noises, computed afresh.

    Args:
        device: where torch computes, for example ``"cuda"``.

    Returns:
        Results by name, on the CPU. A name ends with the format that was computed in: ``"covariance, float32"``. The
        posterior is also there for each of :data:`NOISES`, as in ``"covariance at 0.01, float32"``.
    """
    found = {"NumPy draws": torch.from_numpy(np.random.default_rng(0).standard_normal(64))}
    generator = torch.Generator(device)
    found["permutation"] = torch.randperm(64, generator=generator.manual_seed(0), device=device).double()
    numbers = torch.from_numpy(np.random.default_rng(1).standard_normal(200_000)).to(device)
    for name, dtype in FORMATS.items():
        like: dict[str, Any] = {"dtype": dtype, "device": device}
        results = {f"{n} draws": torch.randn(n, generator=generator.manual_seed(0), **like) for n in (15, 16, 64)}
        results["sum"] = numbers.to(dtype).sum().reshape(1)
        A = numbers[:90_000].reshape(300, 300).to(dtype)
        results["product"] = A @ A.mT
        results["softplus"] = torch.nn.functional.softplus(A[0])
        gp = model(dtype, device=device)
        x = gp.train_inputs[0]
        results["K"] = prior_covariance(gp, x)
        results["Cholesky factor"] = torch.linalg.cholesky(results["K"] + 0.1 * torch.eye(len(x), **like))
        days = torch.linspace(1, 1.25, 50, **like).unsqueeze(-1)
        for noise in NOISES:
            at = posterior(model(dtype, noise, device=device), days)
            results[f"mean at {noise:g}"], results[f"covariance at {noise:g}"] = at.mean, at.covariance_matrix
        results["likelihood"] = marginal_likelihood(gp).detach().reshape(1)
        results["trained"] = descend(model(dtype, step=16, device=device))
        found |= {f"{key}, {name}": value.cpu() for key, value in results.items()}
    short = numbers[:90_000].reshape(300, 300).bfloat16()
    return found | {"permutation": found["permutation"].cpu(), "product, bfloat16": (short @ short.mT).float().cpu()}


def hashes(results: Mapping[str, Tensor]) -> dict[str, str]:
    """Eight hexadecimal digits for the bits of each result.

    >>> hashes({"zero": torch.zeros(1)}) == hashes({"zero": torch.zeros(2)[:1]})
    True
    """
    arguments.mapping("results", results, Tensor)
    return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest()[:8] for name, value in results.items()}


def computed_in(environment: Mapping[str, str], first: str = "") -> dict[str, Tensor]:
    """:func:`computations` in a new process.

    Args:
        environment: variables added to this process's own; no other switch of :data:`machine.SWITCHES` is set.
        first: Python code that runs before the computations, after ``import torch``.

    Raises:
        RuntimeError: if the process fails, with what it wrote.
    """
    arguments.instance("first", first, str, "a text")
    code = f"import torch\n{first}\nfrom gpbook_utils.machines import bits\nbits.write(bits.computations())"
    stored = np.load(io.BytesIO(machine.run_in(environment, code)))
    return {name: torch.from_numpy(stored[name]) for name in stored.files}


def computed_in_each(environments: Mapping[str, tuple | Mapping]) -> dict[str, dict[str, Tensor]]:
    """:func:`computed_in` for named environments, two at a time: variables, or a pair of variables and code.

    >>> computed_in_each({})
    {}
    """
    arguments.mapping("environments", environments, (tuple, Mapping))
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            name: pool.submit(computed_in, *(setting if isinstance(setting, tuple) else (setting,)))
            for name, setting in environments.items()
        }
        return {name: job.result() for name, job in jobs.items()}


def write(results: Mapping[str, Tensor]) -> None:
    """Write results to the standard output in NumPy's format, for the process that waits for them."""
    arguments.mapping("results", results, Tensor)
    arrays: dict[str, Any] = {name: value.numpy() for name, value in results.items()}
    np.savez(buffer := io.BytesIO(), **arrays)
    sys.stdout.buffer.write(buffer.getvalue())


def shared(*machines: Mapping[str, str]) -> dict[str, bool]:
    """For each result that all machines have, whether its hash is the same on all of them.

    Raises:
        ValueError: if there is none.

    >>> shared({"K": "aa", "mean": "bb"}, {"K": "aa", "mean": "cc", "new": "dd"})
    {'K': True, 'mean': False}
    """
    if not machines:
        raise ValueError("machines is empty: give the hashes of at least one")
    for place, one in enumerate(machines):
        arguments.mapping(f"machines[{place}]", one, str)
    names = [name for name in machines[0] if all(name in hashed for hashed in machines)]
    return {name: len({hashed[name] for hashed in machines}) == 1 for name in names}


if __name__ == "__main__":
    print(json.dumps({"edition": EDITION, **hashes(computations())}, indent=1))

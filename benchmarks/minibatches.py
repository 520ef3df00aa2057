"""How fast are many stochastic variational GPs? The engine of the book against the plain loop, side by side.

    python benchmarks/minibatches.py                 one core for everybody, then two processes for the engine
    python benchmarks/minibatches.py --steps 200 --repeats 5

One problem, one set of starts and orders, one thread, float64. Times are the median over rounds; in each round
everybody runs once, so that a busy machine slows all alike. The loop indexes the data itself, since a ``DataLoader``
that collates them row by row would make it slower. Paths part by rounding (see
``gpbook_utils.training.minibatches``), so
beside the speed stands how far the losses of one member are from the loop's at the end, and the loop's own from those
of its twin, whose inducing points are one ulp away.

Under the table stands one evaluation of the loss and its gradient for a member, and how often that is the limit: one
exponential per entry of K at the inducing points and between these and a minibatch, a Cholesky factorisation, and two
products of its size with the minibatch, one for the whitened points and one for the covariance of q(u); shortest of
many, in CPU time. The gradient, which needs about twice as many products, is not in the limit.
"""

import argparse
import os
import statistics
import time

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402
from gpytorch.kernels import RBFKernel, ScaleKernel  # noqa: E402

from gpbook_utils import inducing  # noqa: E402
from gpbook_utils.models import VariationalModel  # noqa: E402
from gpbook_utils.training import fit_alone, fit_minibatches, one_ulp  # noqa: E402
from gpbook_utils.training.batches import Layout  # noqa: E402
from gpbook_utils.training.minibatches import INDUCING_POINTS, VariationalLoss  # noqa: E402


class Problem:
    """n noisy values of a sine, and members that differ in inducing points, seed of q(u) and order."""

    def __init__(self, n: int, m: int, count: int, steps: int, batch_size: int):
        generator = torch.Generator().manual_seed(n)
        self.x = 10 * torch.linspace(0, 1, n, dtype=torch.float64).unsqueeze(-1)
        self.y = torch.sin(self.x).squeeze(-1) + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
        self.m, self.count = m, count
        self.starts = {INDUCING_POINTS: torch.stack([inducing.random(self.x, m, seed=seed) for seed in range(count)])}
        seeds = list(range(count))
        self.options = {"batch_size": batch_size, "orders": seeds, "seeds": seeds, "steps": steps}

    def make(self, batch_shape):
        """A batch of models, or a single one."""
        kernel = ScaleKernel(RBFKernel(batch_shape=batch_shape), batch_shape=batch_shape)
        model = VariationalModel(self.x[: self.m], kernel)
        return model, model.likelihood

    def loop(self, twin=False):
        """Member 0 in the plain loop: all members cost the same."""
        starts = one_ulp(self.starts) if twin else self.starts
        return self.count, fit_alone(0, self.make, self.x, self.y, starts, **self.options)[2]

    def engine(self, workers=1, members=64):
        """All members."""
        options = {**self.options, "workers": workers, "members": members, "record": 1}
        result = fit_minibatches(self.make, self.x, self.y, self.starts, **options)
        return 1, result.trajectories["loss"][0, :-1]


CONTESTANTS = {
    "plain loop": Problem.loop,
    "plain loop, one ulp away": lambda problem: problem.loop(twin=True),
    "engine": Problem.engine,
    "engine, 2 processes": lambda problem: problem.engine(2, -(-problem.count // 2)),
}


def evaluations(problem, seconds=5.0):
    """The shortest time of one evaluation for each member of a full batch, in s: the limit, and the engine."""
    layout = Layout(problem.make)
    rows = layout.rows(problem.starts)
    count, size = problem.count, problem.options["batch_size"]
    x, y = (part[:size].expand(count, *part[:size].shape) for part in (problem.x, problem.y))
    loss = VariationalLoss(problem.make, layout, count, len(problem.y))
    z = problem.starts[INDUCING_POINTS]
    among, between = (-0.5 * (z - other.mT) ** 2 for other in (z, x))
    among.diagonal(dim1=1, dim2=2).add_(0.1)

    def limit():
        factor = torch.linalg.cholesky(among.exp())
        return factor.mT @ torch.linalg.solve_triangular(factor, between.exp(), upper=False)

    shortest = dict.fromkeys((limit, lambda: loss(rows, x, y)), float("inf"))
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for function in shortest:
            began = time.thread_time()
            function()
            shortest[function] = min(shortest[function], (time.thread_time() - began) / count)
    return shortest.values()


def main():
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"n": 2000, "m": 32, "members": 25, "batch-size": 64, "steps": 100, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for contestant in CONTESTANTS.values():  # first calls import, allocate, and start processes
        contestant(Problem(100, 5, 4, 2, 10))
    problem = Problem(given.n, given.m, given.members, given.steps, given.batch_size)
    times, losses = {name: [] for name in CONTESTANTS}, {}
    for _ in range(given.repeats):
        for name, contestant in CONTESTANTS.items():
            began = time.perf_counter()
            factor, losses[name] = contestant(problem)
            times[name].append((time.perf_counter() - began) * factor)
    loop = times["plain loop"]
    print(
        f"n = {given.n}, M = {given.m}, {given.members} members, minibatches of {given.batch_size}, "
        f"{given.steps} steps, {given.repeats} rounds; load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':26}{'ms a member and step':>22}{'x loop':>9}{'loss, off the loop':>21}")
    for name, taken in times.items():
        ratio = statistics.median(other / own for other, own in zip(loop, taken, strict=True))
        each = 1000 * statistics.median(taken) / problem.count / given.steps
        apart = float((losses[name] - losses["plain loop"]).abs().max())
        print(f"{name:26}{each:22.3f}{ratio:9.1f}{apart:21.0e}", flush=True)
    limit, engine = evaluations(problem)
    print(f"one evaluation {1000 * engine:.3f} ms, {engine / limit:.1f} x the limit ({1000 * limit:.3f} ms)")


if __name__ == "__main__":
    main()

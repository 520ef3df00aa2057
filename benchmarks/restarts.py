"""How fast are many starts of one exact GP? The engine of the book against the plain loop and its peers, side by side.

    python benchmarks/restarts.py                    one core for everybody, then two processes for the engine
    python benchmarks/restarts.py --n 50 100 --repeats 5

One problem, one set of starts, one process, one thread, float64: an RBF kernel with outputscale, noise, and a constant
mean. Times are the median over rounds; in each round everybody runs once, so that a busy machine slows all alike. The
L-BFGS variants all stop at the same size of gradient and of relative change, of the loss per datum; scikit-learn, whose
loss is a sum over the data, with bounds and without a mean, gets the tolerance that this means for it. How close the
ends are is printed too: a fast fit to somewhere else would be no gain.

Under each table stands what one evaluation of the engine's loss and gradient takes, for each start of a full batch,
and how often that is the limit: one exponential per entry, a Cholesky factorisation and an inverse, in place, by the
faster of two LAPACKs. These are the shortest of many repeats, taken in turns, in CPU time.

What did not pay for one evaluation:
- torch's factorisation and inverse, even with ``out``: they copy, and clear or mirror a triangle against the memory's
  order. SciPy's in place take half to four fifths of their time.
- One loop with all of LAPACK's calls for a matrix, while it is in the cache, instead of a loop for each call: no gain.
- Kept buffers: a malloc told never to return memory, which has the same effect, is no faster.
- A second way around GPyTorch's call of the model, for models known beforehand: at most 8 % from n = 50 on.
Not tried: first iterations in float32, and giving up starts that cannot win. Both can change where a start ends.
"""

import argparse
import os
import statistics
import time
import warnings

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import gpytorch  # noqa: E402
import numpy as np  # noqa: E402
import scipy.linalg.lapack as lapack  # noqa: E402
import scipy.optimize  # noqa: E402
import torch  # noqa: E402
from botorch.optim.batched_lbfgs_b import fmin_l_bfgs_b_batched  # noqa: E402
from botorch.optim.fit import fit_gpytorch_mll_scipy  # noqa: E402
from gpytorch.kernels import RBFKernel, ScaleKernel  # noqa: E402
from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: E402
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel  # noqa: E402

from gpbook_utils.models import ExactModel  # noqa: E402
from gpbook_utils.training import fit, fit_restarts  # noqa: E402
from gpbook_utils.training.batches import ExactLoss, Layout  # noqa: E402
from gpbook_utils.training.restarts import batch_size  # noqa: E402

LENGTHSCALE, NOISE = "covar_module.base_kernel.lengthscale", "likelihood.noise"
TOL = 1e-5
STEPS = 200


class Problem:
    """n noisy values of a sine, and starts spread over the hyperparameters that make sense of them."""

    def __init__(self, n: int, starts: int):
        rng = np.random.default_rng(n)
        x = np.sort(rng.uniform(0, 10, n))
        self.x = torch.tensor(x).unsqueeze(-1)
        self.y = torch.tensor(np.sin(x) + 0.3 * rng.standard_normal(n))
        self.starts = {
            LENGTHSCALE: torch.tensor(np.exp(rng.uniform(-1.5, 1.5, starts))),
            NOISE: torch.tensor(np.exp(rng.uniform(-4, 0, starts))),
        }
        self.count = starts

    def make(self, batch_shape, expand=False):
        """``expand``: BoTorch's batched fit wants one copy of the data for each member."""
        kernel = ScaleKernel(RBFKernel(batch_shape=batch_shape), batch_shape=batch_shape)
        model = ExactModel(self.x, self.y, kernel)
        if expand:
            inputs, targets = self.x.expand(*batch_shape, -1, -1), self.y.expand(*batch_shape, -1)
            model.set_train_data(inputs, targets, strict=False)
        return model, model.likelihood

    def started(self, which, batch_shape, expand=False):
        """A model, or a batch of models, at some of the starts."""
        model, likelihood = self.make(batch_shape, expand)
        model.covar_module.base_kernel.lengthscale = self.starts[LENGTHSCALE][which].reshape(*batch_shape, 1, 1)
        likelihood.noise = self.starts[NOISE][which].reshape(*batch_shape, 1)
        return model


def adam_loop(problem, some=4):
    """The plain loop, over some of the starts; all cost the same."""
    some = min(some, problem.count)
    for start in range(some):
        end = fit(problem.started(start, torch.Size()), steps=STEPS)[-1].item()
    return problem.count / some, end


def adam_engine(problem, workers=1):
    """The engine with Adam."""
    return 1, fit_restarts(problem.make, problem.starts, steps=STEPS, workers=workers).losses.min().item()


def lbfgs_engine(problem, workers=1):
    """The engine with L-BFGS."""
    result = fit_restarts(problem.make, problem.starts, optimizer="lbfgs", tol=TOL, workers=workers)
    return 1, result.losses.min().item()


def botorch_loop(problem, some=16):
    """BoTorch's fit, one start after the other."""
    some = min(some, problem.count)
    losses = []
    for start in range(some):
        model = problem.started(start, torch.Size())
        model.transform_inputs = lambda X: X  # BoTorch's models have it
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        options = {"gtol": TOL, "ftol": TOL**2, "maxiter": STEPS}
        losses.append(fit_gpytorch_mll_scipy(mll, options=options).fval)
    return problem.count / some, min(losses)


def botorch_batched(problem):
    """BoTorch's batched L-BFGS-B over batches of GPyTorch models, with GPyTorch's objective, 16 members each."""
    lowest = np.inf
    for some in torch.arange(problem.count).split(16):
        model = problem.started(some, torch.Size([len(some)]), expand=True)
        parameters = list(model.parameters())
        sizes = [parameter[0].numel() for parameter in parameters]
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        rows = torch.cat([parameter.detach().reshape(len(some), -1) for parameter in parameters], 1)

        def objective(x, batch_indices, model=model, parameters=parameters, sizes=sizes, mll=mll, rows=rows):
            rows[batch_indices] = torch.from_numpy(x)  # converged members stay in the batch: its shape is fixed
            with torch.no_grad():
                for parameter, value in zip(parameters, rows.split(sizes, 1), strict=True):
                    parameter.copy_(value.reshape(parameter.shape))
            loss = -mll(model(*model.train_inputs), model.train_targets)
            gradient = torch.autograd.grad(loss.sum(), parameters)
            flat = torch.cat([part.reshape(len(rows), -1) for part in gradient], 1)
            return loss.detach().numpy()[batch_indices], flat.numpy()[batch_indices]

        _, losses, _ = fmin_l_bfgs_b_batched(
            objective, rows.numpy().copy(), factr=None, ftol=TOL**2, tol=TOL, maxiter=STEPS, pass_batch_indices=True
        )
        lowest = min(lowest, losses.min())
    return 1, float(lowest)


def sklearn_restarts(problem, some=16):
    """scikit-learn's GaussianProcessRegressor, one start after the other, as its own restarts are."""
    some = min(some, problem.count)
    n = len(problem.y)

    def optimise(objective, theta, bounds):
        options = {"gtol": TOL * n, "ftol": TOL**2, "maxiter": STEPS}
        end = scipy.optimize.minimize(objective, theta, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return end.x, end.fun

    losses = []
    for start in range(some):
        lengthscale, noise = (problem.starts[name][start].item() for name in (LENGTHSCALE, NOISE))
        kernel = ConstantKernel(np.log(2), (1e-5, 1e5)) * RBF(lengthscale, (1e-5, 1e5)) + WhiteKernel(
            noise, (1e-4, 1e5)
        )
        regressor = GaussianProcessRegressor(kernel, alpha=0, optimizer=optimise)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters at a bound
            regressor.fit(problem.x.numpy(), problem.y.numpy())
        losses.append(-regressor.log_marginal_likelihood_value_ / n)
    return problem.count / some, min(losses)


CONTESTANTS = {
    "Adam, plain loop": adam_loop,
    "Adam, engine": adam_engine,
    "L-BFGS, BoTorch's loop": botorch_loop,
    "L-BFGS, BoTorch batched": botorch_batched,
    "L-BFGS, scikit-learn": sklearn_restarts,
    "L-BFGS, engine": lbfgs_engine,
    "Adam, engine, 2 processes": lambda problem: adam_engine(problem, workers=2),
    "L-BFGS, engine, 2 processes": lambda problem: lbfgs_engine(problem, workers=2),
}


def evaluations(problem, seconds):
    """The shortest time of one evaluation for each start of a full batch, in s: the two limits, and the engine."""
    n = len(problem.y)
    members = min(batch_size(n), problem.count)
    layout = Layout(problem.make)
    rows = layout.rows({name: value[:members] for name, value in problem.starts.items()})
    engine = ExactLoss(problem.make, layout, members)
    logs = (-0.5 * (problem.x - problem.x.T) ** 2).repeat(members, 1, 1)
    logs.diagonal(dim1=1, dim2=2).add_(0.1)  # noise
    work = torch.empty_like(logs)

    def by_torch():
        torch.cholesky_inverse(torch.linalg.cholesky(torch.exp(logs, out=work)))

    def by_scipy():
        torch.exp(logs, out=work)
        for matrix in work.numpy():
            lapack.dpotrf(matrix.T, lower=True, clean=False, overwrite_a=True)
            lapack.dpotri(matrix.T, lower=True, overwrite_c=True)

    shortest = dict.fromkeys((by_torch, by_scipy, lambda: engine(rows)), np.inf)
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for function in shortest:
            began = time.thread_time()
            function()
            shortest[function] = min(shortest[function], (time.thread_time() - began) / members)
    return shortest.values()


def main():
    """Print one table for each n."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--starts", type=int, help="by default 12800 / n, at least 16 and at most 256")
    parser.add_argument("--seconds", type=float, default=5.0, help="for the evaluations at each n")
    parser.add_argument("--only-evaluations", action="store_true", help="no fits")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*not p.d.*")
    contestants = {} if arguments.only_evaluations else CONTESTANTS
    for contestant in 2 * list(contestants.values()):  # first calls import, allocate, and start processes
        contestant(Problem(10, 256))
    for n in arguments.n:
        problem = Problem(n, arguments.starts or min(256, max(16, 12_800 // n)))
        times, ends = {name: [] for name in contestants}, {}
        for _ in range(arguments.repeats):
            for name, contestant in contestants.items():
                began = time.perf_counter()
                factor, ends[name] = contestant(problem)
                times[name].append((time.perf_counter() - began) * factor / problem.count)
        print(f"\nn = {n}, {problem.count} starts, {arguments.repeats} rounds; load {os.getloadavg()[0]:.1f}")
        if times:
            print(f"{'':30}{'fits/s':>9}{'x Adam loop':>13}{'lowest loss':>15}")
        for name, taken in times.items():
            ratio = statistics.median(other / own for other, own in zip(times["Adam, plain loop"], taken, strict=True))
            print(f"{name:30}{1 / statistics.median(taken):9.2f}{ratio:13.1f}{ends[name]:15.9f}", flush=True)
        by_torch, by_scipy, engine = evaluations(problem, arguments.seconds)
        print(
            f"one evaluation {1000 * engine:.4f} ms, {engine / min(by_torch, by_scipy):.2f} x the limit "
            f"({1000 * by_torch:.4f} ms by torch's LAPACK, {1000 * by_scipy:.4f} ms by SciPy's)",
            flush=True,
        )


if __name__ == "__main__":
    main()

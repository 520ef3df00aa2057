"""How long a diagnosis takes: ``python benchmarks/diagnose.py [n ...]``, by default n = 100, 1000 and 3000.

One check and one explanation of three differences, of exact GPs with n training points in float64, at n rows of x, as
ratios to one prediction with its covariance, which is timed in the same run. Where rows times points are more than a
million some rows of x are taken; above 800 points the prediction is by Cholesky, as ``max_cholesky_size(n)`` has it.
"""

import sys
import time
from collections.abc import Callable

import gpytorch
import torch
from gpytorch.kernels import RBFKernel, ScaleKernel

from gpbook_utils.diagnose import check_model, explain_difference
from gpbook_utils.models import ExactModel


def timed(run: Callable[[], object]) -> tuple[float, object]:
    """Seconds, and what came."""
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def main(sizes: list[int]) -> None:
    """Print a table of seconds and ratios."""
    print(f"{torch.get_num_threads()} threads; ratios to one prediction with its covariance")
    print(f"{'n':>6}  {'prediction':>12}  {'check_model':>18}  {'explain_difference':>22}  found")
    for n in sizes:
        generator = torch.Generator().manual_seed(0)
        x, at = (torch.rand(n, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        y = torch.sin(6 * x.sum(-1)) + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)

        def model(lengthscale: float, noise: float, outputscale: float, x=x, y=y) -> ExactModel:
            made = ExactModel(x, y, ScaleKernel(RBFKernel(ard_num_dims=2)))
            made.covar_module.base_kernel.lengthscale = torch.tensor([lengthscale, 0.3], dtype=torch.float64)
            made.covar_module.outputscale = torch.tensor(outputscale, dtype=torch.float64)
            made.likelihood.noise = torch.tensor(noise, dtype=torch.float64)
            return made.eval()

        a, b = model(0.3, 0.05, 1.0), model(0.2, 0.1, 2.0)
        with torch.no_grad(), gpytorch.settings.max_cholesky_size(10**6):
            one, _ = min(timed(lambda a=a, at=at: a.train().eval()(at).covariance_matrix.sum()) for _ in range(3))
            a.train().eval()
            check, _ = timed(lambda a=a, at=at: check_model(a, at))
            explain, report = timed(lambda a=a, b=b, at=at: explain_difference(a, b, at))
        causes = ", ".join(finding.cause for finding in report.findings) or "none"
        ratios = f"{check:8.2f} s {check / one:6.1f}x  {explain:11.2f} s {explain / one:7.1f}x"
        print(f"{n:6d}  {one:10.3f} s  {ratios}  {causes}")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [100, 1000, 3000])

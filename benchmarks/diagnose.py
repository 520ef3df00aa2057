"""How long a diagnosis takes: ``python benchmarks/diagnose.py [n ...]``, by default n = 100, 1000 and 3000.

One check and one explanation of three differences, of exact GPs with n training points in float64, at n rows of x.
Where rows times points are more than a million some rows of x are taken, above 800 points GPyTorch's own calls iterate;
both is part of what is timed.
"""

import sys
import time

import torch
from gpytorch.kernels import RBFKernel, ScaleKernel

from gpbook_utils.diagnose import check_model, explain_difference
from gpbook_utils.models import ExactModel


def main(sizes: list[int]) -> None:
    """Print wall-clock and processor seconds for each size."""
    print(f"{torch.get_num_threads()} threads")
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
        for name, run in (
            ("check_model", lambda a=a, at=at: check_model(a, at)),
            ("explain_difference", lambda a=a, b=b, at=at: explain_difference(a, b, at)),
        ):
            wall, processor = time.perf_counter(), time.process_time()
            report = run()
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            causes = ", ".join(finding.cause for finding in report.findings) or "none"
            print(f"n = {n:5d}  {name:20s} wall {wall:6.1f} s  processor {processor:6.1f} s  found: {causes}")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [100, 1000, 3000])

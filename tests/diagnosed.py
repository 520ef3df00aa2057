"""Models that the tests of gpbook_utils.diagnose build, break and compare: small, and each new at every call."""

import copy

import gpytorch
import torch
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.kernels import MaternKernel, MultitaskKernel, RBFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood, MultitaskGaussianLikelihood
from gpytorch.variational import (
    CholeskyVariationalDistribution,
    IndependentMultitaskVariationalStrategy,
    VariationalStrategy,
)

from gpbook_utils.models import ExactModel, SparseModel, VariationalModel, set_optimal_q

N = 30


def data(n=N, d=1, dtype=torch.float64, seed=0):
    """Inputs of shape (n, d) and targets of shape (n,); the global generator is not used."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=generator, dtype=torch.float64)
    y = torch.sin(6 * x.sum(-1)) + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def grid(m=12, d=1, dtype=torch.float64):
    """Test inputs of shape (m, d), none of them a training input."""
    generator = torch.Generator().manual_seed(99)
    return torch.rand(m, d, generator=generator, dtype=torch.float64).to(dtype)


def exact(kernel=None, d=1, dtype=torch.float64, lengthscale=0.2, noise=0.05):
    x, y = data(d=d, dtype=dtype)
    model = ExactModel(x, y, RBFKernel() if kernel is None else kernel)
    if kernel is None:
        model.covar_module.lengthscale = torch.tensor(lengthscale, dtype=dtype)
    model.likelihood.noise = torch.tensor(noise, dtype=dtype)
    return model.eval()


def scaled(**options):
    return exact(ScaleKernel(RBFKernel()), **options)


def sparse(dtype=torch.float64, z=slice(0, 8)):
    x, y = data(dtype=dtype)
    model = SparseModel(x, y, x[z], RBFKernel())
    model.covar_module.base_kernel.lengthscale = torch.tensor(0.2, dtype=dtype)
    return model.eval()


def variational(dtype=torch.float64, z=None, fitted=True, **options):
    x, y = data(dtype=dtype)
    z = torch.linspace(0.03, 0.97, 8, dtype=dtype).unsqueeze(-1) if z is None else z
    model = VariationalModel(z, **options)
    model.covar_module.lengthscale = torch.tensor(0.2, dtype=dtype)
    if fitted:
        set_optimal_q(model, x, y)
    return model.eval()


class Approximate(gpytorch.models.ApproximateGP):
    """A variational model with the strategy and distribution of one's choice."""

    def __init__(self, strategy=VariationalStrategy, distribution=CholeskyVariationalDistribution, m=8, **options):
        z = torch.linspace(0.03, 0.97, m, dtype=torch.float64).unsqueeze(-1)
        super().__init__(strategy(self, z, distribution(m), **options))
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = ScaleKernel(RBFKernel())
        self.covar_module.base_kernel.lengthscale = 0.25
        self.likelihood = GaussianLikelihood()
        self.double()

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def approximate(strategy=VariationalStrategy, distribution=CholeskyVariationalDistribution, **options):
    """As :class:`Approximate`, with q(u) initialised by one call, and trained a little."""
    torch.manual_seed(3)
    model = Approximate(strategy, distribution, **options)
    x, y = data()
    objective = gpytorch.mlls.VariationalELBO(model.likelihood, model, num_data=len(y))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (-objective(model(x), y)).backward()
        optimizer.step()
    return model.eval()


class Multitask(gpytorch.models.ExactGP):
    """Two tasks with an intrinsic coregionalisation kernel."""

    def __init__(self):
        x, y = data()
        super().__init__(x, torch.stack([y, y.square()], -1), MultitaskGaussianLikelihood(num_tasks=2))
        self.mean_module = gpytorch.means.MultitaskMean(gpytorch.means.ConstantMean(), num_tasks=2)
        self.covar_module = MultitaskKernel(RBFKernel(), num_tasks=2, rank=1)

    def forward(self, x):
        return MultitaskMultivariateNormal(self.mean_module(x), self.covar_module(x))


def multitask():
    torch.manual_seed(5)
    return Multitask().double().eval()


class Hadamard(gpytorch.models.ExactGP):
    """Two tasks, one of them observed at each input; called with inputs and task numbers."""

    def __init__(self):
        x, y = data()
        tasks = torch.arange(len(y)).unsqueeze(-1) % 2
        super().__init__((x, tasks), y, GaussianLikelihood())
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = RBFKernel()
        self.task_covar_module = gpytorch.kernels.IndexKernel(num_tasks=2, rank=1)

    def forward(self, x, tasks):
        covar = self.covar_module(x).mul(self.task_covar_module(tasks))
        return MultivariateNormal(self.mean_module(x), covar)


def hadamard():
    torch.manual_seed(5)
    return Hadamard().double().eval()


class Batch(gpytorch.models.ExactGP):
    """Three models at once, of the same inputs."""

    def __init__(self):
        x, y = data()
        shape = torch.Size([3])
        likelihood = GaussianLikelihood(batch_shape=shape)
        super().__init__(x.expand(3, -1, -1).clone(), torch.stack([y, 2 * y, y - 1]), likelihood)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=shape)
        self.covar_module = ScaleKernel(RBFKernel(batch_shape=shape), batch_shape=shape)

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def batch():
    model = Batch().double().eval()
    model.covar_module.base_kernel.lengthscale = torch.tensor([0.1, 0.2, 0.4]).double().reshape(3, 1, 1)
    return model


class Deep(gpytorch.models.ExactGP):
    """A deep kernel: a small network before an RBF kernel."""

    def __init__(self, **options):
        x, y = data()
        super().__init__(x, y, GaussianLikelihood())
        layers = [torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)]
        self.feature_extractor = torch.nn.Sequential(*layers)
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = ScaleKernel(RBFKernel(ard_num_dims=2))

    def forward(self, x):
        features = self.feature_extractor(x)
        return MultivariateNormal(self.mean_module(features), self.covar_module(features))


def deep():
    torch.manual_seed(7)
    return Deep().double().eval()


class IndependentTasks(gpytorch.models.ApproximateGP):
    """Two variational tasks with a strategy around the strategy."""

    def __init__(self):
        z = torch.linspace(0.1, 0.9, 5, dtype=torch.float64).unsqueeze(-1).repeat(2, 1, 1)
        shape = torch.Size([2])
        inner = VariationalStrategy(self, z, CholeskyVariationalDistribution(5, batch_shape=shape))
        super().__init__(IndependentMultitaskVariationalStrategy(inner, num_tasks=2))
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=shape)
        self.covar_module = ScaleKernel(RBFKernel(batch_shape=shape), batch_shape=shape)

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def independent_tasks():
    torch.manual_seed(11)
    model = IndependentTasks().double().eval()
    with torch.no_grad():
        model(grid()).covariance_matrix.sum()
    return model


def trained(model, steps=5):
    """The exact model after a few steps of Adam, in evaluation mode."""
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -objective(model(*model.train_inputs), model.train_targets)
        loss.sum().backward()
        optimizer.step()
    return model.eval()


def loaded(model, make):
    """A new model with the state_dict of this one."""
    new = make()
    new.load_state_dict(copy.deepcopy(model.state_dict()))
    return new.eval()


def matern(nu=2.5, d=1, **options):
    return exact(MaternKernel(nu, ard_num_dims=d if d > 1 else None), d=d, **options)


def found(report):
    """The causes of a report, in its order."""
    return [finding.cause for finding in report.findings]

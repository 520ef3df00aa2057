"""Models of kinds that no other test of the diagnosis knows: each healthy as built, and with one fault planted in it.

Examples of GPyTorch's documentation, rebuilt in a few lines; BoTorch's own models, where BoTorch is installed.
"""

import gpytorch
import torch
from diagnosed import data, grid
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.kernels import (
    AdditiveKernel,
    AdditiveStructureKernel,
    ConstantKernel,
    CosineKernel,
    GaussianSymmetrizedKLKernel,
    GridInterpolationKernel,
    GridKernel,
    HammingIMQKernel,
    IndexKernel,
    LCMKernel,
    LinearKernel,
    MaternKernel,
    MultitaskKernel,
    PeriodicKernel,
    PiecewisePolynomialKernel,
    PolynomialKernel,
    RBFKernel,
    RBFKernelGrad,
    RFFKernel,
    RQKernel,
    ScaleKernel,
    SpectralDeltaKernel,
    SpectralMixtureKernel,
)
from gpytorch.likelihoods import (
    BernoulliLikelihood,
    BetaLikelihood,
    DirichletClassificationLikelihood,
    FixedNoiseGaussianLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    MultitaskGaussianLikelihood,
    SoftmaxLikelihood,
)
from gpytorch.means import ConstantMean, ConstantMeanGrad, LinearMean, MultitaskMean, ZeroMean
from gpytorch.variational import (
    BatchDecoupledVariationalStrategy,
    CholeskyVariationalDistribution,
    GridInterpolationVariationalStrategy,
    LMCVariationalStrategy,
    MeanFieldVariationalDistribution,
    OrthogonallyDecoupledVariationalStrategy,
    TrilNaturalVariationalDistribution,
    VariationalStrategy,
)
from torch import nn

from gpbook_utils.diagnose import guard

settings = {place: value for place, value in guard._values().items() if place[1] in guard._FIELDS}
defaults = {(cls, "_default"): cls._default for cls, field in settings if hasattr(cls, "_default")}
try:
    import botorch  # noqa: F401

    HAS_BOTORCH = True
except ImportError:
    HAS_BOTORCH = False
for (cls, field), value in (settings | defaults).items():  # BoTorch changes some when it is imported
    setattr(cls, field, value)

D = torch.float64


def number(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=D)


class Exact(gpytorch.models.ExactGP):
    """An exact GP of any parts."""

    def __init__(self, x, y, kernel, likelihood=None, mean=None):
        super().__init__(x, y, likelihood or GaussianLikelihood())
        self.mean_module, self.covar_module = mean or ConstantMean(), kernel

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


class Tasks(Exact):
    def forward(self, x):
        return MultitaskMultivariateNormal(self.mean_module(x), self.covar_module(x))


class Independent(Exact):
    def forward(self, x):
        return MultitaskMultivariateNormal.from_batch_mvn(super().forward(x))


class Sparse(gpytorch.models.ApproximateGP):
    """A variational GP of any strategy, with q(u) drawn and moved a little."""

    def __init__(self, strategy, kernel=None, mean=None, likelihood=None):
        super().__init__(strategy(self))
        self.mean_module, self.covar_module = mean or ConstantMean(), kernel or ScaleKernel(RBFKernel())
        self.likelihood = likelihood or GaussianLikelihood()

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def of(kernel, d=1, n=25, mean=None, likelihood=None, kind=Exact, targets=lambda y: y):
    torch.manual_seed(0)
    x, y = data(n=n, d=d)
    return kind(x, targets(y), kernel(), None if likelihood is None else likelihood(y), mean).double().eval()


def started(model, x=None):
    torch.manual_seed(0)
    model.double().train()
    x = data(n=20)[0] if x is None else x
    model(x).mean.sum()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "variational_mean" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, dtype=D))
    return model.eval()


def points(m=6, d=1, batch=()):
    return data(n=m, d=d, seed=4)[0].expand(*batch, m, d).clone()


def svgp(strategy, q=CholeskyVariationalDistribution, m=6, **parts):
    return started(Sparse(lambda model: strategy(model, points(m), q(m), learn_inducing_locations=True), **parts))


def two(y):
    return torch.stack([y, y.square()], -1)


def lengthscale(model):
    """Halve the first lengthscale."""
    name = next(n for n, _ in model.named_parameters() if n.endswith("raw_lengthscale"))
    model.get_parameter(name).data.sub_(0.7)
    return "parameter", name


def noise(model):
    name = next(n for n, _ in model.named_parameters() if n.endswith("raw_noise"))
    model.get_parameter(name).data.add_(1.0)
    return "parameter", name


def parameter(end, by=0.5):
    def plant(model):
        name = next(n for n, _ in model.named_parameters() if n.endswith(end))
        model.get_parameter(name).data.add_(by)
        return None, name

    return plant


def mean_of_q(model):
    name = next(n for n, _ in model.named_parameters() if "variational_mean" in n or "natural_vec" in n)
    model.get_parameter(name).data.add_(0.5)
    return "variational-distribution", None


class Deep(gpytorch.models.deep_gps.DeepGP):
    class Layer(gpytorch.models.deep_gps.DeepGPLayer):
        def __init__(self, d, out):
            shape = torch.Size([out]) if out else torch.Size([])
            q = CholeskyVariationalDistribution(5, batch_shape=shape)
            super().__init__(VariationalStrategy(self, points(5, d, shape).float(), q), d, out or None)
            self.mean_module = ConstantMean(batch_shape=shape)
            self.covar_module = ScaleKernel(RBFKernel(batch_shape=shape), batch_shape=shape)

        def forward(self, x):
            return MultivariateNormal(self.mean_module(x), self.covar_module(x))

    def __init__(self):
        super().__init__()
        self.first, self.last, self.likelihood = self.Layer(1, 2), self.Layer(2, 0), GaussianLikelihood()

    def forward(self, x):
        return self.last(self.first(x))


class Tupled(Exact):
    def __call__(self, *x, **options):
        return {"features": torch.ones(2), "prediction": super().__call__(*x, **options)}


class Convolved(Exact):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.net = nn.Sequential(nn.Unflatten(-1, (1, 4)), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(-2))

    def forward(self, x):
        return super().forward(self.net(x))


class Nested(Exact):
    """A noise that another exact GP gives, with training data of its own."""

    class Noise(gpytorch.likelihoods.noise_models.HeteroskedasticNoise):
        pass

    def __init__(self, x, y, kernel, *rest):
        of_noise = Exact(x, torch.full_like(y, -2.0) + 0.3 * y, RBFKernel()).eval()
        inner = gpytorch.likelihoods.gaussian_likelihood._GaussianLikelihoodBase(noise_covar=self.Noise(of_noise))
        super().__init__(x, y, kernel, inner)


def nested_data(model):
    inner = model.likelihood.noise_covar.noise_model
    inner.set_train_data(targets=inner.train_targets + 1.0)
    return "scaled-targets", "likelihood.noise_covar.noise_model.train_targets"


class Lmc(Sparse):
    def __init__(self):
        shape = torch.Size([2])

        def strategy(model):
            q = CholeskyVariationalDistribution(5, batch_shape=shape)
            return LMCVariationalStrategy(VariationalStrategy(model, points(5, 1, shape), q), 3, 2, latent_dim=-1)

        super().__init__(strategy, ScaleKernel(RBFKernel(batch_shape=shape), batch_shape=shape),
                         ConstantMean(batch_shape=shape), MultitaskGaussianLikelihood(3))  # fmt: skip


def sgpr():
    model = of(lambda: RBFKernel())
    z = model.train_inputs[0][:8].clone()
    model.covar_module = gpytorch.kernels.InducingPointKernel(RBFKernel(), z, model.likelihood).double()
    return model.eval()


def other_likelihood(model):
    import copy

    model.covar_module.likelihood = copy.deepcopy(model.likelihood)
    model.likelihood.noise = number(0.01)
    return None, None


def feature_inputs(model):
    model.train_inputs = (2.0 * model.train_inputs[0],)
    return "scaled-inputs", "train_inputs"


# Name: how it is built, x, the fault, which returns its cause and its place, or none where others would be right too.
GPYTORCH = {
    "structured interpolation": (lambda: of(lambda: GridInterpolationKernel(
        RBFKernel(), grid_size=32, num_dims=1, grid_bounds=[(-0.1, 1.1)])), grid, lengthscale),
    "grid": (lambda: Exact(gpytorch.utils.grid.create_data_from_grid([torch.linspace(0, 1, 5).double()] * 2),
                           torch.linspace(0, 1, 25).double().sin(),
                           GridKernel(RBFKernel(), grid=[torch.linspace(0, 1, 5).double()] * 2)).double().eval(),
             lambda: gpytorch.utils.grid.create_data_from_grid([torch.linspace(0, 1, 5).double()] * 2), lengthscale),
    "additive structure": (lambda: of(lambda: AdditiveStructureKernel(ScaleKernel(RBFKernel()), 3), 3),
                           lambda: grid(d=3), lengthscale),
    "spectral mixture": (lambda: of(lambda: SpectralMixtureKernel(num_mixtures=3)), grid,
                         parameter("raw_mixture_means")),
    "spectral delta": (lambda: of(lambda: SpectralDeltaKernel(1, num_deltas=12)), grid, parameter("raw_Z")),
    "periodic times rbf": (lambda: of(lambda: ScaleKernel(PeriodicKernel() * RBFKernel())), grid,
                           parameter("raw_period_length")),
    "polynomial plus linear": (lambda: of(lambda: PolynomialKernel(2) + LinearKernel()), grid, parameter("raw_offset")),
    "constant plus rq": (lambda: of(lambda: AdditiveKernel(ConstantKernel(), RQKernel())), grid,
                         parameter("raw_alpha")),
    "piecewise polynomial": (lambda: of(lambda: PiecewisePolynomialKernel(q=2)), grid, lengthscale),
    "cosine": (lambda: of(lambda: ScaleKernel(CosineKernel())), grid, parameter("raw_period_length")),
    "symmetrised kl": (lambda: of(lambda: ScaleKernel(GaussianSymmetrizedKLKernel()), 2), lambda: grid(d=2),
                       lengthscale),
    "random features": (lambda: of(lambda: ScaleKernel(RFFKernel(num_samples=20, num_dims=1))), grid, lengthscale),
    "derivatives": (lambda: Tasks(data(12)[0], two(data(12)[1]), RBFKernelGrad(), MultitaskGaussianLikelihood(2),
                                  ConstantMeanGrad()).double().eval(), grid, lengthscale),
    "linear mean": (lambda: of(RBFKernel, 2, mean=LinearMean(2)), lambda: grid(d=2), parameter("weights")),
    "tasks with a full kernel": (lambda: of(lambda: MultitaskKernel(MaternKernel(1.5), 2, rank=2), kind=Tasks,
                                            likelihood=lambda y: MultitaskGaussianLikelihood(2, rank=1),
                                            mean=MultitaskMean(ConstantMean(), 2), targets=two), grid,
                                 parameter("task_noise_covar_factor")),
    "coregionalisation": (lambda: of(lambda: LCMKernel([RBFKernel(), MaternKernel()], 2, rank=1), kind=Tasks,
                                     likelihood=lambda y: MultitaskGaussianLikelihood(2),
                                     mean=MultitaskMean(ZeroMean(), 2), targets=two), grid,
                          parameter("covar_factor")),
    "independent tasks": (lambda: of(lambda: RBFKernel(batch_shape=torch.Size([2])), kind=Independent,
                                     likelihood=lambda y: MultitaskGaussianLikelihood(2),
                                     mean=ConstantMean(batch_shape=torch.Size([2])), targets=two), grid, lengthscale),
    "tasks as a column": (lambda: Exact(torch.cat([data()[0], torch.arange(30).double().unsqueeze(-1) % 2], -1),
                                        data()[1],
                                        RBFKernel(active_dims=[0]) * IndexKernel(2, active_dims=[1])).double().eval(),
                          lambda: torch.cat([grid(), torch.ones(12, 1).double()], -1), lengthscale),
    "categories": (lambda: Exact(torch.eye(4).double()[torch.arange(24).reshape(8, 3) % 4].flatten(1), data(8)[1],
                                 HammingIMQKernel(vocab_size=4)).double().eval(),
                   lambda: torch.eye(4).double()[torch.arange(9).reshape(3, 3) % 4].flatten(1), parameter("raw_alpha")),
    "dirichlet classes": (lambda: of(
        lambda: ScaleKernel(RBFKernel(batch_shape=torch.Size([2])), batch_shape=torch.Size([2])),
        likelihood=lambda y: DirichletClassificationLikelihood((y > 0).long(), dtype=D), kind=Exact,
        mean=ConstantMean(batch_shape=torch.Size([2])),
        targets=lambda y: DirichletClassificationLikelihood((y > 0).long(), dtype=D).transformed_targets),
        grid, lengthscale),
    "known noise": (lambda: of(RBFKernel, likelihood=lambda y: FixedNoiseGaussianLikelihood(0.1 + y.square())), grid,
                    lengthscale),
    "sparse regression": (sgpr, grid, other_likelihood),
    "noise of a model": (lambda: of(RBFKernel, kind=Nested), grid, nested_data),
    "returns a dictionary": (lambda: of(RBFKernel, kind=Tupled), grid, noise),
    "convolution": (lambda: of(RBFKernel, 4, kind=Convolved), lambda: grid(d=4), parameter("net.1.weight")),
    "bernoulli": (lambda: svgp(VariationalStrategy, likelihood=BernoulliLikelihood()), grid, mean_of_q),
    "softmax": (lambda: svgp(VariationalStrategy, likelihood=SoftmaxLikelihood(1, 3)), grid, lengthscale),
    "laplace": (lambda: svgp(VariationalStrategy, likelihood=LaplaceLikelihood()), grid, noise),
    "beta": (lambda: svgp(VariationalStrategy, likelihood=BetaLikelihood()), grid, parameter("raw_scale")),
    "mean field": (lambda: svgp(VariationalStrategy, MeanFieldVariationalDistribution), grid, mean_of_q),
    "triangular natural": (lambda: svgp(VariationalStrategy, TrilNaturalVariationalDistribution), grid, mean_of_q),
    "batch decoupled": (lambda: svgp(BatchDecoupledVariationalStrategy), grid, mean_of_q),
    "orthogonally decoupled": (lambda: started(Sparse(lambda model: OrthogonallyDecoupledVariationalStrategy(
        VariationalStrategy(model, points(5), CholeskyVariationalDistribution(5)), points(7),
        gpytorch.variational.DeltaVariationalDistribution(7)))), grid, lengthscale),
    "variational on a grid": (lambda: started(Sparse(lambda model: GridInterpolationVariationalStrategy(
        model, 12, [(-0.1, 1.1)], CholeskyVariationalDistribution(12)))), grid, mean_of_q),
    "linear model of tasks": (lambda: started(Lmc()), grid, parameter("lmc_coefficients")),
    "just built": (lambda: Sparse(lambda m: VariationalStrategy(
        m, points(), CholeskyVariationalDistribution(6, mean_init_std=0.0))).double().eval(), grid, lengthscale),
}  # fmt: skip


def posterior_models():
    """BoTorch's; imported only here."""
    from botorch.models import (
        KroneckerMultiTaskGP,
        MixedSingleTaskGP,
        ModelListGP,
        MultiTaskGP,
        PairwiseGP,
        SingleTaskGP,
        SingleTaskMultiFidelityGP,
        SingleTaskVariationalGP,
    )
    from botorch.models.contextual import SACGP
    from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP
    from botorch.models.higher_order_gp import HigherOrderGP
    from botorch.models.transforms import ChainedOutcomeTransform, Log, Normalize, Standardize, Warp

    def xy(d=2, n=15, outputs=1):
        x, y = data(n=n, d=d)
        return x, torch.stack([y.add(0.3 * i).sin() for i in range(outputs)], -1)

    def saas():
        x, y = xy()
        model = SaasFullyBayesianSingleTaskGP(x, y)
        samples = {"lengthscale": torch.rand(4, 2).double() + 0.2, "outputscale": torch.rand(4).double() + 0.5,
                   "mean": torch.zeros(4).double(), "noise": torch.full((4, 1), 0.05).double()}  # fmt: skip
        model.load_mcmc_samples(samples)
        return model.eval()

    def one(**options):
        torch.manual_seed(0)
        return SingleTaskGP(*xy(), **options).eval()

    def tasked():
        x, y = xy(1)
        return MultiTaskGP(torch.cat([x, torch.arange(15).double().unsqueeze(-1) % 2], -1), y, task_feature=-1).eval()

    def mixed():
        x, y = xy(1)
        x = torch.cat([x, torch.arange(15).double().unsqueeze(-1) % 3], -1)
        return MixedSingleTaskGP(x, y, cat_dims=[1]).eval()

    def pairwise():
        return PairwiseGP(xy()[0], torch.tensor([[0, 1], [2, 3], [4, 1], [5, 6]])).eval()

    def variational_gp():
        torch.manual_seed(0)
        model = SingleTaskVariationalGP(*xy(), inducing_points=6, outcome_transform=Standardize(1))
        return started(model, xy()[0])

    def scale(model):
        model.outcome_transform.stdvs.mul_(2.0)
        return "buffer", "outcome_transform.stdvs"

    def bounds(model):
        model.train()
        model.input_transform._coefficient.mul_(2.0)
        model.eval()
        return "buffer", "input_transform._coefficient"

    def warp(model):
        model.train()
        cause = parameter("concentration0")(model)
        model.eval()
        return cause

    def second(model):
        return "parameter", "models[1]." + lengthscale(model.models[1])[1]

    normal = lambda: {"input_transform": Normalize(2)}  # noqa: E731
    at = lambda: grid(8, 2)  # noqa: E731
    return {
        "single": (one, at, lengthscale),
        "normalised inputs": (lambda: one(**normal()), at, bounds),
        "standardised": (one, at, scale),
        "log of the outcome": (lambda: SingleTaskGP(*[v.exp() for v in xy()], outcome_transform=ChainedOutcomeTransform(
            log=Log(), standardise=Standardize(1))).eval(), lambda: grid(8, 2).exp(), noise),
        "warped": (lambda: one(input_transform=Warp(d=2, indices=[0, 1])), at, warp),
        "observed noise": (lambda: SingleTaskGP(*xy(), train_Yvar=torch.full((15, 1), 0.1).double()).eval(), at,
                           lengthscale),
        "two outputs, normalised": (lambda: SingleTaskGP(*xy(outputs=2), **normal()).eval(), at, lengthscale),
        "tasks": (tasked, lambda: torch.cat([grid(6), torch.ones(6, 1).double()], -1), lengthscale),
        "tasks without their column": (tasked, lambda: grid(6), lengthscale),
        "categories": (mixed, lambda: torch.cat([grid(6), torch.ones(6, 1).double()], -1), lengthscale),
        "kronecker": (lambda: KroneckerMultiTaskGP(*xy(outputs=2), **normal()).eval(), at, lengthscale),
        "fidelities": (lambda: SingleTaskMultiFidelityGP(*xy(3), data_fidelities=[2]).eval(), lambda: grid(8, 3),
                       lengthscale),
        "fully bayesian": (saas, at, parameter("raw_lengthscale")),
        "variational": (variational_gp, at, lengthscale),
        "pairs": (pairwise, at, lengthscale),
        "list": (lambda: ModelListGP(one(), one(**normal())).eval(), at, second),
        "contexts": (lambda: SACGP(*xy(), torch.full((15, 1), 0.1).double(), {"a": [0], "b": [1]}).eval(), at,
                     lengthscale),
        "higher order": (lambda: HigherOrderGP(xy()[0], xy(outputs=4)[1].reshape(15, 2, 2)).eval(), at,
                         parameter("covar_modules.0.raw_lengthscale")),
    }  # fmt: skip

"""Faults that people reported, rebuilt: what the user sees is what is compared, and silence says what it covers."""

import copy
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import gpytorch
import pytest
import torch
from diagnosed import data, exact, found, grid, scaled, sparse
from gpytorch.constraints import GreaterThan
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.kernels import GridInterpolationKernel, IndexKernel, MaternKernel, RBFKernel, ScaleKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood, MultitaskGaussianLikelihood
from gpytorch.means import ConstantMean
from kinds import HAS_BOTORCH, Exact, Nested, number, of
from torch import nn

from gpbook_utils.diagnose import check_model, explain_difference, progress
from gpbook_utils.diagnose.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore")
with_botorch = pytest.mark.skipif(not HAS_BOTORCH, reason="BoTorch is not installed")
D = torch.float64


def places(report):
    return [(f.cause, f.where) for f in report.findings]


def lines_x(n=30, dtype=D):
    x = torch.linspace(0, 1, n, dtype=dtype).unsqueeze(-1)
    return x, torch.sin(6 * x.squeeze(-1)) + 0.1 * torch.cos(40 * x.squeeze(-1))


# BoTorch -------------------------------------------------------------------------------------------------------------


def xy(n=20, d=2, seed=0):
    x = torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=D)
    return x, torch.sin(6 * x.sum(-1, keepdim=True))


@with_botorch
def test_a_loaded_outcome_transform_is_found_though_the_models_agree_inside():
    """meta-pytorch/botorch#3044: a leave-one-out model with the state of the full one."""
    from botorch.models import SingleTaskGP

    x, y = xy(12)
    y[-1] = 40.0
    full, a, b = SingleTaskGP(x, y).eval(), SingleTaskGP(x[:-1], y[:-1]), SingleTaskGP(x[:-1], y[:-1]).eval()
    nn.Module.load_state_dict(a, full.state_dict())
    report = explain_difference(a.eval(), b, grid(8, 2))
    assert set(places(report)) == {("buffer", "outcome_transform.means"), ("buffer", "outcome_transform.stdvs")}
    assert report.unexplained == {} and "the difference is gone" in report.cure


@with_botorch
def test_transforms_are_named_and_their_data_go_with_them():
    """meta-pytorch/botorch#874, #861 and #2392."""
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Log, Normalize

    x, y = xy()
    normal, plain = SingleTaskGP(10 * x, y, input_transform=Normalize(2)).eval(), SingleTaskGP(10 * x, y).eval()
    report = explain_difference(normal, plain, 10 * grid(8, 2))
    assert places(report) == [("input-transform", "input_transform")] and "difference is gone" in report.cure
    assert check_model(normal, 10 * grid(8, 2)).findings == ()
    logged, by_hand = (SingleTaskGP(x, values, outcome_transform=transform).eval()
                       for values, transform in ((y.exp(), Log()), (y, None)))  # fmt: skip
    report = explain_difference(logged, by_hand, grid(8, 2))
    assert places(report) == [("outcome-transform", "outcome_transform")]
    assert "variances alone" in " ".join(report.notes)
    raw, default = SingleTaskGP(x, 100 * y, outcome_transform=None).eval(), SingleTaskGP(x, 100 * y).eval()
    assert found(explain_difference(raw, default, grid(8, 2))) == ["outcome-transform"]


@with_botorch
def test_conditioning_that_skips_a_transform_is_found_and_one_that_applies_it_is_not():
    """meta-pytorch/botorch#2533 and #1239."""
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize

    x, y = xy(20, 1)
    x = 10 * x
    options = {"outcome_transform": None}

    def model(n):
        bounds = torch.tensor([[0.0], [10.0]], dtype=D)
        made = SingleTaskGP(x[:n], y[:n], input_transform=Normalize(1, bounds=bounds), **options).eval()
        made.posterior(grid()).mean.sum()
        return made

    assert (
        explain_difference(model(10).condition_on_observations(x[10:], y[10:]), model(20), 10 * grid()).findings == ()
    )
    raw = model(10).get_fantasy_model(x[10:], y[10:, 0])
    assert places(check_model(raw, 10 * grid())) == [("skipped-transform", "train_inputs[0][10:]")]
    assert found(explain_difference(raw, model(20), 10 * grid())) == ["skipped-transform", "training-inputs"]
    y[10:] += 5
    options.clear()
    report = explain_difference(model(10).condition_on_observations(x[10:], y[10:]), model(20), 10 * grid())
    assert {"scaled-targets", "buffer"} == set(found(report)) and report.unexplained == {}


@with_botorch
def test_lists_are_taken_apart_and_a_list_is_compared_with_outputs():
    """meta-pytorch/botorch#1150."""
    from botorch.models import ModelListGP, SingleTaskGP

    x, y = xy()
    two = torch.cat([y, x.prod(-1, keepdim=True)], -1)
    a, b = ModelListGP(*(SingleTaskGP(x, two[:, i : i + 1]) for i in (0, 1))).eval(), SingleTaskGP(x, two).eval()
    assert explain_difference(a, b, grid(8, 2)).findings == ()
    a.models[0].covar_module.lengthscale = number(0.3)
    report = explain_difference(a, b, grid(8, 2))
    assert places(report) == [("parameter", "models[0].covar_module.raw_lengthscale")]
    assert "models[1]: posterior mean" in report.quantities
    notes = " ".join(explain_difference(a.models[0], b, grid(8, 2)).notes)
    assert "pass model_b.subset_output([i])" in notes


def test_lists_of_gpytorch_take_one_x_for_each_member():
    a, b = (gpytorch.models.IndependentModelList(exact(), scaled()) for _ in range(2))
    b.models[1].likelihood.noise = number(0.3)
    report = explain_difference(a, b, (grid(), grid()))
    assert places(report) == [("parameter", "models[1].likelihood.noise_covar.raw_noise")]
    with pytest.raises(ValueError, match="model_b must be a list of 2 models too"):
        explain_difference(a, exact(), (grid(), grid()))


# Wrappers and answers ------------------------------------------------------------------------------------------------


def test_wrappers_are_opened_or_say_what_to_pass():
    report = check_model(nn.DataParallel(exact()), grid())
    assert report.findings == () and report.notes == ("model is a DataParallel: its module is what was diagnosed",)

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([exact(), exact()])

    with pytest.raises(ValueError, match=r"got Around: pass model\.parts\[0\] or model\.parts\[1\]"):
        check_model(Around(), grid())


def test_an_answer_in_a_tuple_is_found_and_said():
    class Features(Exact):
        def __call__(self, *x, **options):
            return super().__call__(*x, **options), "features"

    a, b = (of(RBFKernel, kind=Features) for _ in range(2))
    b.likelihood.noise = number(0.01)
    report = explain_difference(a, b, grid())
    assert found(report) == ["parameter"] and "entry 0 of the tuple" in report.notes[0]


def test_what_was_not_compared_is_in_the_verdict():
    """cornellius-gp/gpytorch#1097: the likelihood is no part of a variational model."""
    from diagnosed import variational

    a, b = variational(), variational()
    for model in (a, b):
        del model.likelihood
    report = explain_difference(a, b, grid())
    assert report.verdict.startswith("equal up to rounding in what was compared; not compared: predictive covariance")
    assert "likelihood_a=" in report.missing["predictive covariance"]
    likelihoods = {"likelihood_a": GaussianLikelihood().double(), "likelihood_b": GaussianLikelihood().double()}
    likelihoods["likelihood_b"].noise = number(0.01)
    report = explain_difference(a, b, grid(), **likelihoods)
    assert places(report) == [("parameter", "likelihood.noise_covar.raw_noise")]
    assert report.findings[0].code.startswith("likelihood_b.noise = ")


def test_nothing_comparable_is_the_verdict():
    report = check_model(exact().half(), grid().half())
    assert found(report) == ["call-raises"] and "posterior mean" in report.missing
    report = explain_difference(exact(), exact(), (grid(), grid()))
    assert set(found(report)) == {"number-of-inputs"} and "posterior mean" not in report.compared


def test_noise_that_is_not_known_at_x_is_a_note_a_verdict_and_a_cause():
    """cornellius-gp/gpytorch#1883."""
    x, y = lines_x()
    fixed = Exact(x, y, RBFKernel(), FixedNoiseGaussianLikelihood(torch.full((30,), 0.04, dtype=D))).double().eval()
    report = check_model(fixed, grid())
    assert report.findings == () and "not compared: predictive covariance" in report.verdict
    assert "model warns GPInputWarning" in " ".join(report.notes)
    learned = Exact(x, y, RBFKernel()).double().eval()
    learned.likelihood.noise = number(0.04)
    assert found(explain_difference(fixed, learned, grid())) == ["noise-not-given"]
    uneven = FixedNoiseGaussianLikelihood(torch.linspace(0.01, 0.5, 30, dtype=D))
    assert found(check_model(Exact(x, y, RBFKernel(), uneven).double().eval(), grid(30))) == ["noise-reused"]
    short = FixedNoiseGaussianLikelihood(torch.full((20,), 0.1, dtype=D))
    assert found(check_model(Exact(x, y, RBFKernel(), short).double().eval(), grid()))[0] == "length"


def test_the_users_debug_setting_is_in_force_for_the_users_call():
    """cornellius-gp/gpytorch#1100: samples that were loaded beside the training data of one model."""
    x, y = lines_x(12)
    shapes = {"covar_module.base_kernel.raw_lengthscale": (5, 1, 1), "covar_module.raw_outputscale": (5,),
              "likelihood.noise_covar.raw_noise": (5, 1), "mean_module.raw_constant": (5,)}  # fmt: skip
    samples = {name: torch.linspace(-1, 1, 5, dtype=D).reshape(shape) for name, shape in shapes.items()}

    def loaded(expanded):
        model = Exact(x, y, ScaleKernel(RBFKernel())).double()
        model.load_strict_shapes(False)
        model.load_state_dict(copy.deepcopy(samples), strict=False)
        model.eval()
        if expanded:
            model.set_train_data(x.expand(5, 12, 1).contiguous(), y.expand(5, 12).contiguous(), strict=False)
        return model

    (finding,) = check_model(loaded(False), grid()).findings
    assert (finding.cause, finding.where, finding.b) == ("training-data", "train_inputs", "shape (5, 12, 1)")
    assert set(finding.effect) == {"your call: mean", "your call: covariance"}
    with gpytorch.settings.debug(False):
        assert check_model(loaded(False), grid()).findings == ()  # the same numbers
    assert check_model(loaded(True), grid().expand(5, 12, 1)).findings == ()


# Errors of the call --------------------------------------------------------------------------------------------------


def test_a_matrix_that_is_not_positive_definite_is_measured():
    """meta-pytorch/botorch#1429."""
    x, y = lines_x(60, torch.float32)
    x, y = torch.cat([x, x]), torch.cat([y, y + 0.01])

    def make(dtype):
        likelihood = GaussianLikelihood(noise_constraint=GreaterThan(1e-9))
        likelihood.noise = 1e-8
        kernel = ScaleKernel(RBFKernel())
        kernel.base_kernel.lengthscale, kernel.outputscale = 2.0, 400.0
        return Exact(x.to(dtype), y.to(dtype), kernel, likelihood).to(dtype).eval()

    (finding,) = check_model(make(torch.float32), grid(dtype=torch.float32)).findings
    assert finding.cause == "not-positive-definite" and "60 of 120 rows repeat another" in finding.a
    assert "least eigenvalue -" in finding.a and "In float64 the call works." in finding.detail
    report = explain_difference(make(torch.float32), make(D), grid(dtype=torch.float32))
    assert found(report) == ["not-positive-definite", "dtype"]


def test_formats_lengths_and_grids_that_do_not_fit_are_named():
    x, y = lines_x(30, torch.float32)
    mixed = Exact(x, y.double(), RBFKernel()).eval()
    assert places(check_model(mixed, grid(dtype=torch.float32))) == [("mixed-dtype", "train_targets")]  # gpytorch#2003
    short = Exact(*data(), RBFKernel()).double().eval()
    short.train_targets = short.train_targets[:20]
    assert places(check_model(short, grid())) == [("length", "train_targets")]
    kernel = GridInterpolationKernel(RBFKernel(), grid_size=32, num_dims=1, grid_bounds=[(-0.1, 1.1)])
    report = check_model(Exact(*data(), kernel).double().eval(), 3 * grid())
    assert places(report) == [("outside-grid", "covar_module")]


# Kinds of fault ------------------------------------------------------------------------------------------------------


def test_a_noise_that_only_one_likelihood_has_is_exchanged_with_what_belongs_to_it():
    """cornellius-gp/gpytorch#1303: a global noise beside the noises of the tasks."""
    x, y = lines_x()

    class Two(Exact):
        def forward(self, x):
            return MultitaskMultivariateNormal.from_batch_mvn(super().forward(x))

    def make(shared):
        shape = torch.Size([2])
        likelihood = MultitaskGaussianLikelihood(2, has_global_noise=shared).double()
        likelihood.task_noises = torch.full((2,), 0.04, dtype=D)
        kernel = ScaleKernel(RBFKernel(batch_shape=shape), batch_shape=shape)
        return Two(x, torch.stack([y, -y], -1), kernel, likelihood, ConstantMean(batch_shape=shape)).double().eval()

    report = explain_difference(make(True), make(False), grid())
    assert places(report) == [("structure", "likelihood.raw_noise")] and report.unexplained == {}
    assert report.findings[0].size < 1 and report.findings[0].b == "absent"


def test_a_module_that_eval_does_not_reach_comes_first():
    """cornellius-gp/gpytorch#1418, with the network in a list."""

    class Hidden(Exact):
        def forward(self, x):
            return super().forward(self.holder[0](x))

    torch.manual_seed(0)
    model = Hidden(*lines_x(), ScaleKernel(RBFKernel()))
    model.holder = [nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).double()]
    report = check_model(model.double().eval(), grid())
    assert places(report) == [("mode", "holder[0]"), ("state-outside-state-dict", "holder[0]")]
    assert report.findings[0].code == "model.holder[0].eval()" and "does not reach" in report.findings[0].detail


def test_columns_of_integers_and_expanded_attributes_raise_no_alarm():
    x, y = lines_x()
    tasks = (torch.arange(30) % 2).double().unsqueeze(-1) + 1
    kernel = ScaleKernel(RBFKernel(active_dims=[0])) * IndexKernel(3, active_dims=[1])
    model = Exact(torch.cat([x, tasks], -1), y, kernel).double().eval()
    assert check_model(model, torch.cat([x[:8] + 0.01, tasks[:8]], -1)).findings == ()
    model = exact()
    model.weights = torch.ones(1, 1, dtype=D).expand(30, 1)
    assert check_model(model, grid()).findings == ()


@pytest.mark.parametrize("cast", ["centred", "minus a constant", "to float64", "as it is"])
def test_times_that_collapsed_in_a_cast_are_found_whatever_was_done_after_it(cast):
    t = 1.7e9 + 1.25 * torch.arange(400, dtype=D)
    y, single = torch.sin(t / 60), t.float()
    x = {"centred": single - single.mean(), "minus a constant": single - 1.7e9, "to float64": single.double(),
         "as it is": single}[cast].unsqueeze(-1)  # fmt: skip
    model = Exact(x, y.to(x), ScaleKernel(RBFKernel())).to(x.dtype).eval()
    model.covar_module.base_kernel.lengthscale = 20.0
    report = check_model(model, torch.linspace(float(x.min()), float(x.max()), 20, dtype=x.dtype).unsqueeze(-1))
    assert places(report)[0] == ("collapsed-inputs", "train_inputs") and "of 400 rows" in report.findings[0].a


def test_repeated_measurements_and_centred_times_are_no_collapse():
    x = (torch.arange(40, dtype=D) / 7).repeat_interleave(8).unsqueeze(-1)
    y = torch.sin(x[:, 0]) + 0.3 * torch.randn(320, generator=torch.Generator().manual_seed(0), dtype=D)
    assert check_model(Exact(x, y, RBFKernel()).double().eval(), x[::20] + 0.01).findings == ()
    t = 1.25 * torch.arange(400, dtype=D)
    model = Exact((t - t.mean()).unsqueeze(-1), torch.sin(t / 60), RBFKernel()).double().eval()
    assert check_model(model, torch.linspace(-200, 200, 20, dtype=D).unsqueeze(-1)).findings == ()


def test_a_buffer_that_training_fills_anew_is_stale_after_an_edit():
    class Kept(Exact):
        def __init__(self, *parts):
            super().__init__(*parts)
            self.register_buffer("scale", torch.ones(1, dtype=D))

        def forward(self, x):
            if self.training:
                self.scale = 1 + self.covar_module.lengthscale.detach().flatten()
            return MultivariateNormal(self.mean_module(x), self.covar_module(x) * self.scale)

    model = of(RBFKernel, kind=Kept).train()
    model(*model.train_inputs)
    assert check_model(model.eval(), grid()).findings == ()
    model.covar_module.lengthscale = number(0.2)
    assert ("stale-buffer", "scale") in places(check_model(model, grid()))


def test_parts_that_hold_another_likelihood_and_data_of_inner_models_are_looked_at():
    model = copy.deepcopy(sparse()).eval()
    model.covar_module.eval()
    model.likelihood.noise = number(0.3)
    assert places(check_model(model, grid())) == [("other-likelihood", "covar_module.likelihood")]
    model = of(RBFKernel, kind=Nested)
    model.likelihood.noise_covar.noise_model.train_targets[3] = float("nan")
    assert places(check_model(model, grid())) == [("not-finite", "likelihood.noise_covar.noise_model.train_targets")]


def test_a_noise_that_was_raised_to_the_floor_is_said_to_be():
    x, y = lines_x()
    a, b = (Exact(x, y, RBFKernel(), FixedNoiseGaussianLikelihood(torch.full((30,), s, dtype=D))).double().eval()
            for s in (1e-9, 1e-3))  # fmt: skip
    assert places(explain_difference(a, b, grid())) == [("noise-clamped", "likelihood.noise_covar.noise")]


def test_targets_in_thousands_are_unscaled_and_probes_come_before_trained_parameters():
    x, y = lines_x()
    model = Exact(x, 500 + 100 * y, ScaleKernel(RBFKernel())).double().eval()
    assert places(check_model(model, grid())) == [("unscaled-targets", "train_targets")]
    a, b = (of(lambda: ScaleKernel(MaternKernel(0.5)), n=60) for _ in range(2))
    b.covar_module.base_kernel.lengthscale = number(0.3)
    with gpytorch.settings.max_cholesky_size(20), gpytorch.settings.num_trace_samples(2):
        causes = found(explain_difference(a, b, grid()))
    assert causes[0] == "random-probes" and "parameter" in causes


# Remedies and reports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda m: setattr(m.likelihood, "noise", number(0.3)), "model_b.likelihood.noise = "),
        (lambda m: m.train(), "model_b.eval()"),
        (lambda m: m.set_train_data(targets=2 * m.train_targets), "model_b.set_train_data(model_a.train_inputs, "),
        (lambda m: m.float(), "model_b.double()\nmodel_b.load_state_dict("),
        (lambda m: setattr(m, "covar_module", scaled().covar_module), "model_b.covar_module = copy.deepcopy("),
        (lambda m: setattr(m, "train_inputs", None), "model_b.set_train_data("),
    ],
)
def test_a_line_of_code_does_what_the_report_says(edit, line):
    a, b = exact(), exact()
    edit(b)
    report = explain_difference(a, b, grid())
    assert report.cure in (f"Tried on copies: with {n} the difference is gone." for n in ("this line", "these lines"))
    code = "\n".join(f.code for f in report.findings)
    assert line in code, code
    exec(code, {"model_a": a, "model_b": b, "torch": torch, "copy": copy})
    left = explain_difference(a, b, grid())
    assert left.unexplained == {} and all(f.size < 1e-6 for f in left.findings), str(left)


def test_a_report_is_a_hundred_columns_wide_says_first_what_was_compared_and_last_the_rounding():
    model = exact()
    model.covar_module.a_name_of_a_plain_attribute_that_is_rather_long = "x" * 300
    model.likelihood.noise = number(0.3)
    lines = str(explain_difference(exact(), model, grid())).splitlines()
    assert max(map(len, lines)) <= 100 and lines[0] == "two models: 1 cause found"
    assert lines[1].startswith("Compared at 12 rows of x: prior covariance, posterior mean")
    assert "float64, condition number" in "\n".join(lines[-3:])


def test_a_report_as_a_dictionary_goes_through_json():
    said = explain_difference(exact(), exact(lengthscale=0.4).train(), grid()).to_dict()
    again = json.loads(json.dumps(said))
    assert again == said and {f["cause"] for f in again["findings"]} == {"parameter", "mode"}
    assert again["rows"] == 12 and "all" in str(again["findings"])


SCRIPT = """
import torch
from gpbook_utils.models import ExactModel
x = torch.linspace(0, 1, 9).unsqueeze(-1)
models = [ExactModel(x, x.squeeze(-1)).eval() for _ in range(2)]
models[1].likelihood.noise = 0.3
"""


def test_the_command_line(tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert main([f"{script}:models[0]", "--x", f"{script}:x + 0.01"]) == 0
    assert main([f"{script}:models[0]", f"{script}:models[1]", "--x", f"{script}:x", "--json"]) == 1
    said = capsys.readouterr().out.split("\n{", 1)[1]
    assert json.loads("{" + said)["findings"][0]["where"] == "likelihood.noise_covar.raw_noise"
    assert main([f"{script}:nobody", "--x", f"{script}:x"]) == 2 and "nobody" in capsys.readouterr().err


def test_a_terminal_hears_of_readings_after_two_seconds_and_nothing_else_does(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    for stream, heard in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        check_model(exact(), grid())
        assert ("readings" in stream.getvalue()) is heard
    assert "\r" not in stream.getvalue()


@pytest.mark.deep
@with_botorch
def test_the_package_never_needs_botorch():
    root = Path(__file__).parents[1]
    program = "import sys; import gpbook_utils.diagnose; print([m for m in sys.modules if m.startswith('botorch')])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_warnings_of_the_libraries_are_notes_and_the_input_that_was_trained_on_is_none():
    model = exact()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert check_model(model, model.train_inputs[0]).notes == ()

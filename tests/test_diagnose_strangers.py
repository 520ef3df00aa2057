"""What strangers met who gave the tool their broken models: each was wrong once."""

import copy
import importlib.metadata
import re
from pathlib import Path

import gpytorch
import pytest
import torch
from diagnosed import data, exact, found, grid, scaled
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
from gpytorch.variational import CholeskyVariationalDistribution, VariationalStrategy
from kinds import HAS_BOTORCH, D, Exact, Sparse, number, started

from gpbook_utils.compare import MORE, ROUNDING, Comparison
from gpbook_utils.diagnose import CAUSES, check_model, explain_difference
from gpbook_utils.diagnose.causes import PAGES
from gpbook_utils.models import ExactModel

CHAPTERS = Path(__file__).parents[1] / "chapters"


def long(n=200, dtype=torch.float32, lengthscale=0.2, noise=0.05):
    model = ExactModel(*data(n=n, dtype=dtype), ScaleKernel(RBFKernel()))
    model.covar_module.base_kernel.lengthscale = torch.tensor(lengthscale, dtype=dtype)
    model.likelihood.noise = torch.tensor(noise, dtype=dtype)
    return model.eval()


# One measure --------------------------------------------------------------------------------------------------------


def test_every_line_of_a_report_judges_by_the_level_in_its_footer():
    x = torch.linspace(0, 1, 300).unsqueeze(-1)
    with gpytorch.settings.max_cholesky_size(20), gpytorch.settings.eval_cg_tolerance(0.3):
        reports = check_model(long(), x), explain_difference(long(), long(lengthscale=0.201), x)
    judged = {(q.before.verdict, q.before.relative > q.level) for r in reports for q in r.quantities.values()
              if isinstance(q.before, Comparison) and not q.before.equal}  # fmt: skip
    assert judged <= {(MORE, True), (ROUNDING, False)} and (MORE, True) in judged
    for name, size in reports[0].findings[0].effect.items():
        assert reports[0].quantities[name].before.relative == pytest.approx(size)
    assert "cholesky-switch" in found(reports[1])  # the two differ by more than by Cholesky


# Remedies that go together ------------------------------------------------------------------------------------------


def applied(report, a, b):
    for finding in report.findings:
        exec(finding.code, {"model_a": a, "model_b": b, "torch": torch, "copy": copy})
    return explain_difference(a, b, grid())


@pytest.mark.parametrize("coarse_first", [True, False])
@pytest.mark.parametrize("other", [lambda: exact(lengthscale=0.3, noise=0.2), lambda: exact(MaternKernel(0.5))])
def test_the_lines_for_two_formats_change_the_coarser_model_and_no_other(other, coarse_first):
    a, b = (exact(dtype=torch.float32), other()) if coarse_first else (other(), exact(dtype=torch.float32))
    report = explain_difference(a, b, grid())
    assert len(report.findings) > 1 and report.cure.endswith("one after the other, the difference is gone.")
    target = "model_a" if coarse_first else "model_b"
    lines = [line for finding in report.findings for line in finding.code.splitlines() if line[0] not in " )"]
    assert lines and all(line.startswith(target) for line in lines), lines
    left = applied(report, a, b)
    assert left.findings == () and left.unexplained == {}, str(left)


@pytest.mark.parametrize("coarse_first", [True, False])
def test_collapsed_inputs_are_named_beside_a_model_in_float64(coarse_first):
    t = 1.7e9 + 1.25 * torch.arange(400, dtype=D)

    def make(dtype):
        model = Exact(t.to(dtype).unsqueeze(-1), torch.sin(t / 60).to(dtype), ScaleKernel(RBFKernel())).to(dtype)
        model.covar_module.base_kernel.lengthscale = 20.0
        return model.eval()

    pair = [make(torch.float32), make(D)]
    report = explain_difference(*(pair if coarse_first else pair[::-1]), t[::20].unsqueeze(-1))
    where = f"model_{'a' if coarse_first else 'b'}: train_inputs"
    assert [(f.cause, f.where) for f in report.findings] == [("collapsed-inputs", where), ("dtype", "")]
    assert report.cure == "Tried on copies: with these lines the difference is gone."


def test_what_two_models_share_their_copies_share_until_a_line_parts_them():
    a, b = scaled(), scaled()
    b.covar_module = a.covar_module
    report = explain_difference(a, b, grid())
    assert (
        found(report) == ["shared-parameters"] and report.cure == "Tried on copies: with this line nothing is shared."
    )
    exec(report.findings[0].code, {"model_a": a, "model_b": b, "copy": copy})
    assert a.covar_module.raw_outputscale is not b.covar_module.raw_outputscale


def test_a_block_that_two_findings_ask_for_is_printed_once():
    with gpytorch.settings.max_cholesky_size(50), gpytorch.settings.num_trace_samples(2):
        report = check_model(long(noise=1e-3), grid(dtype=torch.float32))
    assert {"random-probes", "cholesky-switch"} <= set(found(report))
    assert str(report).count("with gpytorch.settings.max_cholesky_size(200):\n") == 1


def test_a_parameter_in_memory_of_data_and_a_switched_setting_have_their_lines():
    x, _ = data()
    model = started(Sparse(lambda m: VariationalStrategy(m, x[:5], CholeskyVariationalDistribution(5))), x)
    model.variational_strategy.inducing_points.data = (z := grid())[:5]
    (finding,) = check_model(model, z).findings
    assert finding.code == (
        "model.variational_strategy.inducing_points.data = (\n"
        "    model.variational_strategy.inducing_points.data.clone()\n)"
    ) or finding.code.endswith("inducing_points.data.clone()")
    with gpytorch.settings.skip_posterior_variances():
        (finding,) = check_model(exact(), grid()).findings
    assert finding.code.startswith("with gpytorch.settings.skip_posterior_variances(False):\n")


# Inputs in other units ----------------------------------------------------------------------------------------------


def test_inputs_in_thousands_are_unscaled_and_targets_without_a_pattern_are_not():
    x, y = data()
    model = Exact(1000 * x, y, ScaleKernel(RBFKernel())).double().eval()
    (finding,) = check_model(model, 1000 * grid()).findings
    assert (finding.cause, finding.where) == ("unscaled-inputs", "train_inputs") and "covariance" in finding.a
    model.covar_module.base_kernel.lengthscale = number(200.0)
    assert check_model(model, 1000 * grid()).findings == ()
    years = torch.arange(60, dtype=D).unsqueeze(-1)  # neighbours are related, however much better another unit fits
    assert check_model(Exact(years, (years[:, 0] / 20).sin(), ScaleKernel(RBFKernel())).double().eval(), years[::9]
                       ).findings == ()  # fmt: skip
    noise = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=D)
    assert check_model(Exact(1000 * x, noise, ScaleKernel(RBFKernel())).double().eval(), 1000 * grid()).findings == ()


# No alarm -----------------------------------------------------------------------------------------------------------


def sparse_float32(seed, jitter=None):
    """A stochastic variational GP in float32 as one trains it, with inducing points among the data."""
    torch.manual_seed(seed)
    x, y = data(n=200, dtype=torch.float32, seed=seed)
    model = Sparse(lambda m: VariationalStrategy(m, x[:20].clone(), CholeskyVariationalDistribution(20),
                                                 jitter_val=jitter))  # fmt: skip
    objective = gpytorch.mlls.VariationalELBO(model.likelihood, model, num_data=len(y))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (-objective(model(x), y)).backward()
        optimizer.step()
    return model.eval()


def test_the_librarys_jitter_is_no_fault_of_a_sparse_model_in_float32_and_a_larger_one_is():
    for seed in (0, 1):
        report = check_model(sparse_float32(seed), grid(dtype=torch.float32))
        assert report.findings == () and report.unexplained == {}, str(report)
    assert found(check_model(sparse_float32(0, jitter=0.05), grid(dtype=torch.float32))) == ["jitter"]


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_a_mean_that_crosses_zero_does_not_depend_on_the_call(seed):
    x = 2 * torch.rand(40, 1, generator=torch.Generator().manual_seed(seed)) - 1
    model = Exact(x, x[:, 0] ** 3, ScaleKernel(MaternKernel(1.5))).eval()
    model.likelihood.noise = 1e-3
    assert check_model(model, torch.linspace(-1e-4, 1e-4, 20).unsqueeze(-1)).findings == ()


def test_a_row_is_named_only_if_the_others_agree_without_it():
    class Normalised(ExactModel):
        def forward(self, x):
            return super().forward((x - x.mean(-2, keepdim=True)) / x.std(-2, keepdim=True))

    (finding,) = check_model(Normalised(*data()).eval(), grid()).findings
    assert (finding.cause, finding.where) == ("batch-dependence", "x")


@pytest.mark.skipif(not HAS_BOTORCH, reason="needs BoTorch")
@pytest.mark.filterwarnings("ignore")
def test_a_kronecker_model_with_a_transform_agrees_with_itself():
    """meta-pytorch/botorch#3132."""
    from botorch.models import KroneckerMultiTaskGP
    from botorch.models.transforms import Normalize

    x = 10 * torch.rand(15, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    y = torch.stack([torch.sin(x.sum(-1)), x.prod(-1)], -1)
    bounds = number(0.0, 10.0).unsqueeze(-1).expand(2, 2)
    model = KroneckerMultiTaskGP(x, y, input_transform=Normalize(2, bounds=bounds)).eval()
    report = check_model(model, x[:8] + 0.1)
    assert report.findings == () and report.unexplained == {}, str(report)


# Training mode ------------------------------------------------------------------------------------------------------


def test_of_a_model_that_trains_on_many_rows_the_probes_come_first_and_its_call_is_compared():
    """At its training inputs, of which some rows are taken: the call in training mode takes no others."""
    model = long(n=600).train()
    with gpytorch.settings.max_cholesky_size(500):
        report = check_model(model, model.train_inputs[0])
        assert found(report)[0] == "random-probes" and "mode" in found(report)
        assert "raised" not in " ".join(report.notes) and "your call: covariance" in report.compared
        other = long(n=600, lengthscale=0.3).train()
        pair = explain_difference(model, other, model.train_inputs[0])
    assert "raised" not in " ".join(pair.notes) and found(pair)[0] == "random-probes"
    assert isinstance(pair.quantities["your call: covariance"].before, Comparison)
    assert model.train_inputs[0].shape == (600, 1)


# What a report says -------------------------------------------------------------------------------------------------


def test_the_report_of_one_model_has_no_other_model():
    text = str(check_model(exact().train(), grid()))
    assert "   now       training\n   repaired  evaluation\n" in text
    assert "   a   " not in text and "\nb raised" not in text and "model_b" not in text
    text = str(explain_difference(exact(), exact().train(), grid()))
    assert "   a       evaluation\n   b       training\n" in text


def test_a_chapter_is_a_link_to_its_page_and_in_text_the_name_of_it():
    report = explain_difference(exact(), exact(lengthscale=0.4), grid())
    assert "(chapter 2, 02_hidden_state)" in re.sub(r"\s+", " ", str(report))
    assert '<a href="02_hidden_state.html">chapter 2</a>' in report._repr_html_()
    for name, cause in CAUSES.items():
        page = PAGES[cause.chapter]
        assert page.startswith(f"{cause.chapter:02}_") and (CHAPTERS / f"{page}.ipynb").exists(), name


def test_a_report_says_of_which_version_it_is():
    report = explain_difference(exact(), exact(lengthscale=0.4), grid())
    version = importlib.metadata.version("gpbook")
    assert report.to_dict()["version"] == version
    assert str(check_model(exact(), grid())).endswith(f"; gpbook {version})")

"""Wrong answers to audit, and other right ones: texts, or changes to the solution (see ``tests``)."""

MUTANTS = {
    "q1": {
        "compares with the first run only": {
            "for p in results for q in results": "for p in results[:1] for q in results"
        },
        "leaves the generator seeded": {"torch.random.fork_rng(devices=[])": "torch.no_grad()"},
        "divides by the first matrix": {"apart(p, q)": "((p - q).norm() / results[0].norm()).item()"},
        "seeds once, before all runs": {
            "            torch.manual_seed(seed)\n": "",
            "        for seed": "        torch.manual_seed(seeds[0])\n        for seed",
        },
        "compares neighbours only": {"for p in results for q in results": "for p, q in zip(results, results[1:])"},
        "never seeds": {"            torch.manual_seed(seed)\n": ""},
    },
    "q2": {
        "sets the start only where the kernel is a bare Matérn": {
            "if 5 not in like_a:": "if 5 not in like_a and 2 not in like_a:"
        },
        "seeds by itself": {"    if 1 in like_a": "    torch.manual_seed(0)\n    if 1 in like_a"},
        "scales outside of the inducing points": {
            (
                "    if 2 in like_a:\n"
                "        kernel = ScaleKernel(matern)\n"
                "        kernel.raw_outputscale.requires_grad_(False)\n"
            ): "",
            "    model = Model": (
                "    if 2 in like_a:\n"
                "        kernel = ScaleKernel(kernel)\n"
                "        kernel.raw_outputscale.requires_grad_(False)\n"
                "    model = Model"
            ),
        },
        "trains the outputscale": {"        kernel.raw_outputscale.requires_grad_(False)\n": ""},
        "rounds the measurement times and not the wanted ones": {
            "(h.astype(np.float32)) for h in (hours, wanted)]": "(h) for h in (hours.astype(np.float32), wanted)]"
        },
        "adds the noise only without gradients": {"if 7 in like_a": "if {6, 7} <= like_a"},
        "takes the start for a part of step 4": {"if 5 not in like_a": "if 4 not in like_a"},
    },
    "q3": {
        "seeds once, before all runs": {
            "        torch.manual_seed(seed)\n": "",
            "    everything": "    torch.manual_seed(seed)\n    everything",
        },
        "never seeds": {"        torch.manual_seed(seed)\n": ""},
        "seeds once for each step": {
            "    return {step: (apart(b, seeded({step})), apart(a, seeded(everything - {step}))) for step in steps}": (
                "    return {step: (apart(b, seeded({step})), apart(a, run(everything - {step}))) for step in steps}"
            )
        },
        "seeds the changed runs, and not the two scripts": {
            "b, a = seeded(set()), seeded(everything)": "b, a = run(set()), run(everything)"
        },
        "takes the steps for 1, 2, 3...": {
            "    return {": (
                "    names = {step: k if type(step) is int else step for k, step in enumerate(steps, start=1)}\n"
                "    return {"
            ),
            "seeded({step})": "seeded({names[step]})",
            "everything - {step}": "everything - {names[step]}",
        },
        "measures both sides from B": {
            "apart(a, seeded(everything - {step}))": "apart(b, seeded(everything - {step}))"
        },
        "exchanges one step after the other and leaves them exchanged": {
            "(apart(b, seeded({step})),": "(apart(b, seeded(set(steps[: steps.index(step) + 1]))),"
        },
        "swaps the sides": {"(everything - {step})))": "(everything - {step})))[::-1]"},
    },
    "q4": {
        "orders by the number of the step": {
            "[7, 4, 2, 1]": "[1, 2, 4, 7]",
            "[4, 5, 3, 2, 7, 1]": "[1, 2, 3, 4, 5, 7]",
        },
        "takes the sides for each other": {"in_b =": "swapped =", "in_a =": "in_b =", "swapped =": "in_a ="},
        "looks at B's side alone": {"[4, 5, 3, 2, 7, 1]": "[7, 4, 2, 1]", "[3, 5]": "[]", "[6]": "[3, 5, 6]"},
        "from the smallest to the largest": {
            "[7, 4, 2, 1]": "[1, 2, 4, 7]",
            "[4, 5, 3, 2, 7, 1]": "[1, 7, 2, 3, 5, 4]",
        },
    },
    "q5": {
        "keeps the last start": {"max(reached, key=lambda pair: pair[0])[1]": "reached[-1][1]"},
        "keeps the least noise": {"key=lambda pair: pair[0]": "key=lambda pair: -pair[1].likelihood.noise.item()"},
        "keeps the shortest lengthscale": {
            "key=lambda pair: pair[0]": "key=lambda pair: -pair[1].covar_module.lengthscale.item()"
        },
        "tries the first two starts": {"in starts:": "in starts[:2]:"},
        "keeps the worst": {"max(reached": "min(reached"},
        "ignores the starts": {
            "        model.covar_module.lengthscale = torch.tensor(start, dtype=torch.float64)\n": ""
        },
        "returns the covariance of y": {"best.eval()(s)": "best.likelihood(best.eval()(s))"},
        "keeps the floor of group B": {
            "GaussianLikelihood()": "GaussianLikelihood(noise_constraint=GreaterThan(0.05))"
        },
        "keeps the outputscale of group A": {
            "Model(t, y, MaternKernel(2.5), GaussianLikelihood())": (
                "Model(t, y, ScaleKernel(MaternKernel(2.5)), GaussianLikelihood())\n"
                "        model.covar_module.raw_outputscale.requires_grad_(False)"
            ),
            "covar_module.lengthscale": "covar_module.base_kernel.lengthscale",
        },
        "rounds the times before the origin is subtracted": {
            "h - hours[0])": "np.float32(h) - np.float32(hours)[0]).double()"
        },
    },
    "q6": {
        "guesses the letter right, and measures the mean distance": {
            "apart(torch.stack(runs).mean(0),": "sum(apart(one,",
            "group_a(hours, degrees, wanted))": "group_a(hours, degrees, wanted)) for one in runs) / 10",
        },
        "another sentence": {'"c"': '"e"'},
        "guesses letter and number": """
wrong = "b"
number = 0.3
""",
        "counts the seeds from one": {"range(10)": "range(1, 11)"},
    },
    "q9": {
        "rounding adds up": {"math.log(seen / first) / math.log(factor)": "seen / first"},
        "a step multiplies by one minus rate times curvature, whatever the momentum": {
            "factor = np.abs(np.linalg.eigvals(matrices)).max()": "factor = max(abs(1 - lr * h) for h in curvatures)"
        },
        "the momentum makes the rate smaller, and that is all": {
            "factor = np.abs(np.linalg.eigvals(matrices)).max()": (
                "factor = max(abs(1 - lr * (1 - beta) * h) for h in curvatures)"
            )
        },
        "real parts in place of absolute values": {
            "np.abs(np.linalg.eigvals(matrices))": "np.linalg.eigvals(matrices).real"
        },
        "the flattest direction": {
            "np.abs(np.linalg.eigvals(matrices)).max()": ("np.abs(np.linalg.eigvals(matrices)).max(-1).min()")
        },
        "rounding without the condition number": {"2 * n * 2**-53 * kappa": "2 * n * 2**-53"},
        "eps for the unit roundoff, and natural units": {
            "2 * n * 2**-53 * kappa": "2 * n * 2**-52 * kappa",
            "math.log(seen / first) /": "math.log2(seen / first) /",
        },
    },
    "q10": {
        "the table as it should have been": {"        model.eval()(s[:1]).mean.detach() ": "        model.eval() "},
        "the noise of training, nothing edited": {
            "        model.likelihood.noise = torch.tensor(noise, dtype=torch.float64)\n": ""
        },
        "standardises as the archive does": {"degrees.std())": "degrees.std(ddof=1))"},
        "the archive's table": """
relevant = lambda model_a, model_b, x, least=1e-3: sorted(
    {finding.cause for finding in explain_difference(model_a, model_b, x).findings if finding.size >= least}
)


def table(hours, degrees, wanted, noise):
    s = torch.from_numpy(wanted - hours[0]).unsqueeze(-1)
    with torch.no_grad():
        f = from_archive(ARCHIVE, hours, degrees)(s)
        return f.mean, f.variance
""",
        "types what is printed": {
            "        return f.mean, f.variance": (
                "        return torch.tensor(PUBLISHED['mean']), torch.tensor(PUBLISHED['variance'])"
            )
        },
        "the published record's parameters for every record": {
            "    train(model)\n": (
                "    model.covar_module.lengthscale, model.likelihood.noise = torch.tensor([1.45, 0.036]).double()\n"
            )
        },
        "the data sheet of the published table": {"torch.tensor(noise,": "torch.tensor(0.3,"},
        "all that the tool finds": {">= least}": ">= 0}"},
        "the first cause alone": {"(model_a, model_b, x).findings": "(model_a, model_b, x).findings[:1]"},
    },
}

ACCEPTED = {
    "q1": {
        "restores the generator by hand": """
import itertools


def seed_spread(script, seeds):
    before = torch.get_rng_state()
    results = [(torch.manual_seed(seed), script())[1] for seed in seeds]
    torch.set_rng_state(before)
    return max(apart(p, q) for p, q in itertools.combinations(results, 2))
""",
    },
    "q2": {
        "always draws, always passes a constraint, and warns": {
            ("    if 4 not in like_a:\n        z = t[torch.randperm(len(t))[:12]]\n"): (
                "    z = t[torch.randperm(len(t))[:12]]\n    if 4 not in like_a:\n"
            ),
            "None if 3 in like_a else GreaterThan(0.05)": "GreaterThan(1e-4 if 3 in like_a else 0.05)",
            "    train(model)": "    warnings.warn('this may take a while')\n    train(model)",
        },
    },
    "q3": {
        "lists for pairs, and a generator that is put back": """
def effects(run, steps, seed=0):
    def distance(one, other):
        matrices = []
        for like_a in (one, other):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                matrices.append(run(like_a))
        return apart(*matrices)

    return {step: [distance(set(), {step}), distance(set(steps), set(steps) - {step})] for step in steps}
""",
    },
    "q4": {
        "computed in another form": {"[3, 5]": "sorted(set(in_a) - set(in_b))"},
    },
    "q5": {
        "the posterior from scratch": """
def agreed(hours, degrees, wanted, starts):
    def matern(p, q, lengthscale):
        d = math.sqrt(5) * (p - q.mT).abs() / lengthscale
        return (1 + d + d**2 / 3) * torch.exp(-d)

    t, s = [torch.from_numpy(h - ORIGIN).unsqueeze(-1) for h in (hours, wanted)]
    y = torch.from_numpy((degrees - degrees.mean()) / degrees.std())
    found = []
    for start in starts:
        model = Model(t, y, MaternKernel(2.5), GaussianLikelihood())
        model.covar_module.initialize(lengthscale=torch.tensor(start, dtype=torch.float64))
        found.append((train(model), model.covar_module.lengthscale.item(), model.likelihood.noise.item()))
    _, lengthscale, noise = max(found)
    L = torch.linalg.cholesky(matern(t, t, lengthscale) + noise * torch.eye(len(t), dtype=t.dtype))
    half = torch.linalg.solve_triangular(L, matern(t, s, lengthscale), upper=False)
    return matern(s, s, lengthscale) - half.mT @ half
""",
    },
    "q9": {
        "the largest root of each characteristic polynomial": {
            "matrices = [[[beta, (1 - beta) * h], [-lr * beta, 1 - lr * (1 - beta) * h]] for h in curvatures]": (
                "roots = [np.roots([1, lr * (1 - beta) * h - 1 - beta, beta]) for h in curvatures]"
            ),
            "np.abs(np.linalg.eigvals(matrices)).max()": "max(abs(root) for pair in roots for root in pair)",
        },
    },
    "q10": {
        "the mean by hand, with the noise of training": {
            "        model.eval()(s[:1]).mean.detach()  # the look: from here on the weights of the mean are kept\n": (
                "        mean = model.eval()(s).mean\n        model.train()\n        model.eval()\n"
            ),
            "return f.mean,": "return mean.tolist(),",
        },
    },
    "q6": {
        "a running mean": {"torch.stack(runs).mean(0)": "sum(runs) / len(runs)"},
    },
}

"""Answers to audit that are wrong, and others that are right, for the tests of the marking."""


def changed(right: str, *changes: tuple[str, str]) -> str:
    """The right answer with some of its lines replaced; each of them has to occur."""
    for old, new in changes:
        if old not in right:
            raise ValueError(f"the answer has no {old!r}")
        right = right.replace(old, new)
    return right


SPREAD = """
def seed_spread(script, seeds):
    results = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            results.append(script())
    return max(apart(p, q) for p in results for q in results)
"""

HYBRID = """
def hybrid(hours, degrees, wanted, like_a):
    if 1 in like_a:
        t, s = [torch.from_numpy(h - hours[0]).unsqueeze(-1) for h in (hours, wanted)]
    else:
        single = [torch.from_numpy(h.astype(np.float32)) for h in (hours, wanted)]
        t, s = [(h - single[0][0]).double().unsqueeze(-1) for h in single]
    y = torch.from_numpy((degrees - degrees.mean()) / degrees.std())
    kernel = matern = MaternKernel(2.5)
    if 2 in like_a:
        kernel = ScaleKernel(matern)
        kernel.raw_outputscale.requires_grad_(False)
    likelihood = GaussianLikelihood(noise_constraint=None if 3 in like_a else GreaterThan(0.05))
    if 4 not in like_a:
        z = t[torch.randperm(len(t))[:12]]
        kernel = InducingPointKernel(kernel, z, likelihood)
        kernel.inducing_points.requires_grad_(False)
    model = Model(t, y, kernel, likelihood)
    if 5 not in like_a:
        matern.lengthscale = torch.tensor(6.0, dtype=torch.float64)
    train(model)
    with torch.set_grad_enabled(6 not in like_a):
        f = model.eval()(s)
        return (likelihood(f) if 7 in like_a else f).covariance_matrix.detach()
"""

EFFECTS = """
def effects(run, steps, seed=0):
    def seeded(like_a):
        torch.manual_seed(seed)
        return run(like_a)

    everything = set(steps)
    b, a = seeded(set()), seeded(everything)
    return {step: (apart(b, seeded({step})), apart(a, seeded(everything - {step}))) for step in steps}
"""

LISTS = """
in_b = [7, 4, 2, 1]
in_a = [4, 5, 3, 2, 7, 1]
masked = [3, 5]
inert = [6]
"""

AGREED = """
def agreed(hours, degrees, wanted, starts):
    t, s = [torch.from_numpy(h - hours[0]).unsqueeze(-1) for h in (hours, wanted)]
    y = torch.from_numpy((degrees - degrees.mean()) / degrees.std())
    reached = []
    for start in starts:
        model = Model(t, y, MaternKernel(2.5), GaussianLikelihood())
        model.covar_module.lengthscale = torch.tensor(start, dtype=torch.float64)
        reached.append((train(model), model))
    best = max(reached, key=lambda pair: pair[0])[1]
    with torch.no_grad():
        return best.eval()(s).covariance_matrix
"""

SENTENCE = """
runs = []
for k in range(10):
    torch.manual_seed(k)
    runs.append(group_b(hours, degrees, wanted))
wrong = "c"
number = apart(torch.stack(runs).mean(0), group_a(hours, degrees, wanted))
"""

SCALED_DISTANCE = """
def seed_spread(script, seeds):
    results = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            results.append(script())
    return max(((p - q).norm() / results[0].norm()).item() for p in results for q in results)
"""

MUTANTS = {
    "q1": {
        "compares with the first run only": changed(
            SPREAD,
            ("for p in results for q in results", "for p in results[:1] for q in results"),
        ),
        "leaves the generator seeded": changed(SPREAD, ("torch.random.fork_rng(devices=[])", "torch.no_grad()")),
        "divides by the first matrix": SCALED_DISTANCE,
        "seeds once, before all runs": changed(
            SPREAD,
            ("            torch.manual_seed(seed)\n", ""),
            ("        for seed", "        torch.manual_seed(seeds[0])\n        for seed"),
        ),
        "compares neighbours only": changed(
            SPREAD,
            (
                "for p in results for q in results",
                "for p, q in zip(results, results[1:])",
            ),
        ),
        "never seeds": changed(SPREAD, ("            torch.manual_seed(seed)\n", "")),
    },
    "q2": {
        "sets the start only where the kernel is a bare Matérn": changed(
            HYBRID, ("if 5 not in like_a:", "if 5 not in like_a and 2 not in like_a:")
        ),
        "seeds by itself": changed(HYBRID, ("    if 1 in like_a", "    torch.manual_seed(0)\n    if 1 in like_a")),
        "scales outside of the inducing points": changed(
            HYBRID,
            (
                "    if 2 in like_a:\n        kernel = ScaleKernel(matern)\n"
                "        kernel.raw_outputscale.requires_grad_(False)\n",
                "",
            ),
            (
                "    model = Model",
                "    if 2 in like_a:\n        kernel = ScaleKernel(kernel)\n"
                "        kernel.raw_outputscale.requires_grad_(False)\n    model = Model",
            ),
        ),
        "trains the outputscale": changed(HYBRID, ("        kernel.raw_outputscale.requires_grad_(False)\n", "")),
        "rounds the measurement times and not the wanted ones": changed(
            HYBRID,
            (
                "single = [torch.from_numpy(h.astype(np.float32)) for h in (hours, wanted)]",
                "single = [torch.from_numpy(hours.astype(np.float32)), torch.from_numpy(wanted)]",
            ),
        ),
        "adds the noise only without gradients": changed(HYBRID, ("if 7 in like_a", "if {6, 7} <= like_a")),
        "takes the start for a part of step 4": changed(HYBRID, ("if 5 not in like_a", "if 4 not in like_a")),
    },
    "q3": {
        "seeds once, before all runs": changed(
            EFFECTS,
            ("        torch.manual_seed(seed)\n", ""),
            ("    everything", "    torch.manual_seed(seed)\n    everything"),
        ),
        "never seeds": changed(EFFECTS, ("        torch.manual_seed(seed)\n", "")),
        "takes the steps for 1, 2, 3...": changed(
            EFFECTS,
            (
                "(apart(b, seeded({step})), apart(a, seeded(everything - {step}))) for step in steps",
                "(apart(b, seeded({k if type(step) is int else step})), apart(a, seeded(everything - "
                "{k if type(step) is int else step}))) for k, step in enumerate(steps, start=1)",
            ),
        ),
        "measures both sides from B": changed(
            EFFECTS, ("apart(a, seeded(everything - {step}))", "apart(b, seeded(everything - {step}))")
        ),
        "exchanges one step after the other and leaves them exchanged": changed(
            EFFECTS,
            (
                "(apart(b, seeded({step})),",
                "(apart(b, seeded(set(steps[: steps.index(step) + 1]))),",
            ),
        ),
        "swaps the sides": changed(
            EFFECTS,
            (
                "(apart(b, seeded({step})), apart(a, seeded(everything - {step})))",
                "(apart(a, seeded(everything - {step})), apart(b, seeded({step})))",
            ),
        ),
    },
    "q4": {
        "orders by the number of the step": changed(
            LISTS, ("[7, 4, 2, 1]", "[1, 2, 4, 7]"), ("[4, 5, 3, 2, 7, 1]", "[1, 2, 3, 4, 5, 7]")
        ),
        "takes the sides for each other": changed(LISTS, ("in_b =", "x ="), ("in_a =", "in_b ="), ("x =", "in_a =")),
        "looks at B's side alone": changed(
            LISTS, ("[4, 5, 3, 2, 7, 1]", "[7, 4, 2, 1]"), ("[3, 5]", "[]"), ("[6]", "[3, 5, 6]")
        ),
        "from the smallest to the largest": changed(
            LISTS, ("[7, 4, 2, 1]", "[1, 2, 4, 7]"), ("[4, 5, 3, 2, 7, 1]", "[1, 7, 2, 3, 5, 4]")
        ),
    },
    "q5": {
        "keeps the last start": changed(AGREED, ("max(reached, key=lambda pair: pair[0])[1]", "reached[-1][1]")),
        "keeps the least noise": changed(
            AGREED, ("key=lambda pair: pair[0]", "key=lambda pair: -pair[1].likelihood.noise.item()")
        ),
        "keeps the shortest lengthscale": changed(
            AGREED, ("key=lambda pair: pair[0]", "key=lambda pair: -pair[1].covar_module.lengthscale.item()")
        ),
        "tries the first two starts": changed(AGREED, ("in starts:", "in starts[:2]:")),
        "keeps the worst": changed(AGREED, ("max(reached", "min(reached")),
        "ignores the starts": changed(
            AGREED, ("        model.covar_module.lengthscale = torch.tensor(start, dtype=torch.float64)\n", "")
        ),
        "returns the covariance of y": changed(AGREED, ("best.eval()(s)", "best.likelihood(best.eval()(s))")),
        "keeps the floor of group B": changed(
            AGREED, ("GaussianLikelihood()", "GaussianLikelihood(noise_constraint=GreaterThan(0.05))")
        ),
        "keeps the outputscale of group A": changed(
            AGREED,
            (
                "Model(t, y, MaternKernel(2.5), GaussianLikelihood())",
                "Model(t, y, ScaleKernel(MaternKernel(2.5)), GaussianLikelihood())\n"
                "        model.covar_module.raw_outputscale.requires_grad_(False)",
            ),
            ("covar_module.lengthscale", "covar_module.base_kernel.lengthscale"),
        ),
        "rounds the times before the origin is subtracted": changed(
            AGREED,
            (
                "torch.from_numpy(h - hours[0]).unsqueeze(-1) for",
                "torch.from_numpy(h.astype(np.float32) - hours.astype(np.float32)[0]).double().unsqueeze(-1) for",
            ),
        ),
    },
    "q6": {
        "guesses the letter right, and measures the mean distance": changed(
            SENTENCE,
            (
                "apart(torch.stack(runs).mean(0), group_a(hours, degrees, wanted))",
                "sum(apart(one, group_a(hours, degrees, wanted)) for one in runs) / 10",
            ),
        ),
        "another sentence": changed(SENTENCE, ('"c"', '"e"')),
        "guesses letter and number": 'wrong = "b"\nnumber = 0.3',
        "counts the seeds from one": changed(SENTENCE, ("range(10)", "range(1, 11)")),
    },
}

BY_HAND = """
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
"""

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
        "always draws, always passes a constraint, and warns": changed(
            HYBRID,
            (
                "    if 4 not in like_a:\n        z = t[torch.randperm(len(t))[:12]]\n",
                "    z = t[torch.randperm(len(t))[:12]]\n    if 4 not in like_a:\n",
            ),
            ("None if 3 in like_a else GreaterThan(0.05)", "GreaterThan(1e-4 if 3 in like_a else 0.05)"),
            ("    train(model)", "    warnings.warn('this may take a while')\n    train(model)"),
        ),
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
    "q4": {"computed in another form": changed(LISTS, ("[3, 5]", "sorted(set(in_a) - set(in_b))"))},
    "q5": {"the posterior from scratch": BY_HAND},
    "q6": {
        "a running mean": changed(SENTENCE, ("torch.stack(runs).mean(0)", "sum(runs) / len(runs)")),
    },
}

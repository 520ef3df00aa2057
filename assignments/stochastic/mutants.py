"""Wrong answers to stochastic, and other right ones: texts, or changes to the solution (see ``tests``)."""

MUTANTS = {
    "q1": {
        "watches the generators' states in place of the result": """
def deciders(run):
    def states():
        return {
            "torch": torch.get_rng_state().numpy().tobytes(),
            "numpy": str(np.random.get_state()[1:3]) + np.random.get_state()[1].tobytes().hex(),
            "python": random.getstate(),
        }

    with generators_kept():
        before = states()
        run()
        after = states()
    return [name for name in SEED if before[name] != after[name]]
""",
        "never runs twice, and blames entropy where all three decide": """
def deciders(run):
    def result(other=None):
        for name, seed in SEED.items():
            seed(1 if name == other else 0)
        return run()

    with generators_kept():
        base = result()
        found = [name for name in SEED if not torch.equal(base, result(name))]
    return ["entropy"] if len(found) == 3 else found
""",
        "lets the other streams run on between two runs": """
def deciders(run):
    found = []
    with generators_kept():
        for name, seed in SEED.items():
            seed(0)
            first = run()
            seed(1)
            if not torch.equal(first, run()):
                found.append(name)
    return found
""",
        "compares sums, which a permutation does not change": {
            "return run()": "return run().sum().item()",
            "if not torch.equal(base, result())": "if base != result()",
            "if not torch.equal(base, result(name))": "if base != result(name)",
        },
        "takes nearly equal results as equal": {
            "torch.equal(base, result())": "torch.allclose(base, result())",
            "torch.equal(base, result(name))": "torch.allclose(base, result(name))",
        },
        "leaves the generators seeded": {"with generators_kept():": "if True:"},
        "reads the code, and takes every generator without a seed for entropy": {
            "if not torch.equal(base, result()):": (
                "if {'Generator', 'default_rng', 'SystemRandom'} & set(run.__code__.co_names):"
            )
        },
        "does not know of fresh entropy": {
            '        if not torch.equal(base, result()):\n            return ["entropy"]\n': ""
        },
    },
    "q2": {
        "no bias correction": {
            "(m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)": "m / (v.sqrt() + eps)"
        },
        "eps under the square root": {
            "((v / (1 - betas[1] ** t)).sqrt() + eps)": "(v / (1 - betas[1] ** t) + eps**2).sqrt()"
        },
        "the bias correction of the first step in every step": {
            "betas[0] ** t": "betas[0]",
            "betas[1] ** t": "betas[1]",
        },
        "the usual betas, whatever is asked for": {"m = v = shift": "betas = 0.9, 0.999\n    m = v = shift"},
        "the mean gradient in each step, as on the full batch": {
            "m = v = shift": ("gradients = gradients.mean(0).expand_as(gradients)\n    m = v = shift")
        },
        "squares the gradients in place": {"* g**2": "* g.pow_(2)"},
    },
    "q3": {
        "mean squares of the effects without the interaction taken off": {
            "ms_start - ms_rest": "ms_start",
            "ms_order - ms_rest": "ms_order",
            "ms_rest - rounding": "ms_rest",
        },
        "takes rounding in place of the interaction off the main effects, as for fixed effects": {
            "ms_start - ms_rest": "ms_start - rounding",
            "ms_order - ms_rest": "ms_order - rounding",
        },
        "exchanges the numbers of starts and orders in what is taken off": {
            "(ms_start - ms_rest) / (b * r)": "start.var() - ms_rest / (a * r)",
            "(ms_order - ms_rest) / (a * r)": "order.var() - ms_rest / (b * r)",
        },
        "the degrees of freedom of two twins, for any number": {"(a * b * (r - 1))": "(a * b)"},
        "cuts off an interaction below zero": {"(ms_rest - rounding) / r": "((ms_rest - rounding) / r).clamp_min(0)"},
        "one variance of rounding for each line, of which each is that of the whole": {
            "each.mean(1), each.mean(0)": "each.mean().expand(len(v)), each.mean().expand(v.shape[1])"
        },
        "the variance over orders and twins together": {"each.mean(1), each.mean(0)": "v.var((1, 2)), v.var((0, 2))"},
        "takes two twins for granted": {"v.var(2)": "(v[..., 0] - v[..., 1]).square() / 2"},
        "believes the model, for its estimates are unbiased": {'fails = ["a", "c"]': "fails = []"},
        "thinks of starts and not of what is said of the fifth": {'fails = ["a", "c"]': 'fails = ["a"]'},
        "variances with the number of effects in the denominator": {
            "(ms_start - ms_rest) / (b * r)": "start.var(correction=0)",
            "(ms_order - ms_rest) / (a * r)": "order.var(correction=0)",
            "(ms_rest - rounding) / r, rounding": "rest.square().mean(), (v - pair[..., None]).square().mean()",
        },
    },
    "q4": {
        "two independent samples": {
            "difference.std(ddof=1)": "math.hypot(np.std(first, ddof=1), np.std(second, ddof=1))",
            "n - 1)": "2 * n - 2)",
        },
        "normal quantiles for ten pairs": {"stats.t.ppf((1 + level) / 2, n - 1)": "stats.norm.ppf((1 + level) / 2)"},
        "twice the pairs, as for two samples": {"(z * deviation / d) ** 2": "2 * (z * deviation / d) ** 2"},
        "one-sided quantiles": {
            "stats.t.ppf((1 + level) / 2,": "stats.t.ppf(level,",
            "stats.norm.ppf((1 + level) / 2)": "stats.norm.ppf(level)",
        },
        "level and power as usual, whatever is asked for": {
            "difference = np.asarray": "level, power = 0.95, 0.8\n    difference = np.asarray"
        },
        "NumPy's standard deviation, with n in the denominator": {"difference.std(ddof=1)": "difference.std()"},
    },
    "q5": {
        "does not seed what GPyTorch draws": {
            "        torch.manual_seed(start)  # the first call draws the mean of q(u)\n": ""
        },
        "leaves the global stream seeded": {"torch.random.fork_rng(devices=[])": "torch.enable_grad()"},
        "one seed for both": {"for seed in (start, order)": "for seed in (start, start)"},
        "the order decides the mean of q(u)": {"torch.manual_seed(start)  #": "torch.manual_seed(order)  #"},
        "the same order in every epoch": {"size, rows)": "size, torch.Generator().manual_seed(order))"},
        "the objective of one batch": {"num_data=len(x)": "num_data=size"},
        "the noise is not trained": {"*model.parameters(), *likelihood.parameters()": "*model.parameters()"},
        "four epochs, whatever is asked for": {"range(epochs)": "range(min(epochs, 4))"},
        "batches of fifty": {"len(x), size, rows": "len(x), max(size, 50), rows"},
        "puts back the seed in place of the stream": {
            "with torch.random.fork_rng(devices=[]):": "before = torch.initial_seed()\n    if True:",
            "    with torch.no_grad():": "    torch.manual_seed(before)\n    with torch.no_grad():",
        },
    },
    "q6": {
        "the formula for symmetric matrices for all": {"S = (M + M.T) / 2": "S = M"},
        "the upper triangle twice": {"S = (M + M.T) / 2": "S = M.triu() + M.triu(1).T"},
        "forgets the factor two": {"variance = 2 * S": "variance = S", "variance - 2 * S": "variance - S"},
        "returns the variance": {"variance.sqrt()": "variance"},
    },
    "q7": {
        "the usual call": {"max_cholesky_size(len(first.train_targets))": "fast_computations()"},
        "a seed before each call": {
            "max_cholesky_size(len(first.train_targets)):\n        return as_usual(first) - as_usual(second)": (
                "fast_computations(), torch.random.fork_rng(devices=[]):\n"
                "        return float(np.subtract(*[(torch.manual_seed(0), as_usual(m))[1] for m in (first, second)]))"
            )
        },
        "the average of twenty calls": {
            "max_cholesky_size(len(first.train_targets))": "fast_computations()",
            "as_usual(first) - as_usual(second)": ("sum(as_usual(first) - as_usual(second) for _ in range(20)) / 20"),
        },
        "a thousand probes": {"max_cholesky_size(len(first.train_targets))": "num_trace_samples(1000)"},
        "solves to the last digit, and estimates the determinant": {
            "max_cholesky_size(len(first.train_targets))": (
                "cg_tolerance(1e-5), gpytorch.settings.max_cg_iterations(999)"
            )
        },
        "one datum more than by default": {"len(first.train_targets)": "801"},
        "nats for one datum": {
            "as_usual(first) - as_usual(second)": ("(as_usual(first) - as_usual(second)) / len(first.train_targets)")
        },
        "a seed takes the chance away, and so do enough probes": {
            '"thousand probes": True': '"thousand probes": False'
        },
        "what is random is random everywhere": {'"mean of 801": False': '"mean of 801": True'},
    },
    "q8": {
        "the average of the biases divided like a scatter": {"return bias, ": "return bias / math.sqrt(probes), "},
        "divides the standard deviation by the number of probes": {"math.sqrt(probes)": "probes"},
        "a sample's standard deviation for the whole": {"estimates.std(correction=0)": "estimates.std()"},
        "random probes in place of all": {
            "signs(len(A))": "torch.tensor(np.random.default_rng(0).choice([-1.0, 1.0], (len(A), 1000)))"
        },
        "the distance from the exact quadratic forms as scatter": {
            "signs(len(A)), steps)": "signs(len(A)), steps) - quadrature(A, signs(len(A)), len(A))",
            " - torch.linalg.slogdet(A).logabsdet": "",
        },
    },
    "q9": {
        "more probes cure all": {'"probes": "scatter"': '"probes": "both"'},
        "a seed takes the scatter away": {'"seed": "neither"': '"seed": "scatter"'},
        "the tolerance takes the bias of the determinant away": {'"tolerance": "neither"': '"tolerance": "bias"'},
        "a preconditioner leaves the scatter": {'"preconditioner": "both"': '"preconditioner": "bias"'},
    },
    "q10": {
        "takes the sentence on few products for the wrong one": {
            'wrong = "d"\nnumber = error(32, 3) / error(16, 6)': 'wrong = "b"\nnumber = error(2, 3) / error(1, 6)'
        },
        "scatter alone": {"bias**2 + ": ""},
        "bias alone": {" + estimates.var(correction=0) / probes": ""},
        "adds bias and scatter": {
            "math.sqrt(bias**2 + estimates.var(correction=0) / probes)": (
                "float(bias + estimates.std(correction=0) / probes**0.5)"
            )
        },
        "the bias shrinks with the probes, too": {
            "bias**2 + estimates.var(correction=0) / probes": ("(bias**2 + estimates.var(correction=0)) / probes")
        },
        "guesses the letter and makes up the number": """
wrong = "d"
number = 2.0
""",
    },
}

ACCEPTED = {
    "q1": {
        "a set, bytes in place of tensors, and other seeds": """
def deciders(run):
    def result(seeds):
        for name, seed in SEED.items():
            seed(seeds.get(name, 123))
        return run().numpy().tobytes()

    with generators_kept():
        base = result({})
        repeats = base == result({})
        moved = {name for name in SEED if base != result({name: 456})}
    return moved if repeats else {"entropy"}
""",
    },
    "q2": {
        "torch's own Adam": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    place = torch.zeros_like(gradients[0], requires_grad=True)
    adam = torch.optim.Adam([place], lr=lr, betas=betas, eps=eps)
    for g in gradients:
        place.grad = g.clone()
        adam.step()
    return place.detach()
""",
        "the moments as sums over all steps": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    g, total = gradients, 0
    for t in range(1, len(g) + 1):
        age = torch.arange(t - 1, -1, -1, dtype=g.dtype).reshape(-1, *[1] * (g.dim() - 1))
        first, second = ((b**age * x[:t]).sum(0) / (b**age).sum() for b, x in zip(betas, (g, g**2)))
        total = total - lr * first / (second**0.5 + eps)
    return total
""",
    },
    "q3": {
        "NumPy, by the mean squares, as an array": """
def components(v):
    v = v.numpy()
    a, b, r = v.shape
    mean, row, column, pair = v.mean(), v.mean(axis=(1, 2)), v.mean(axis=(0, 2)), v.mean(axis=2)
    ms_a = b * r * ((row - mean) ** 2).sum() / (a - 1)
    ms_b = a * r * ((column - mean) ** 2).sum() / (b - 1)
    ms_c = r * sum((pair[i, j] - row[i] - column[j] + mean) ** 2 for i in range(a) for j in range(b))
    ms_c = ms_c / (a - 1) / (b - 1)
    ms_e = v.var(axis=2, ddof=1).mean()
    return np.array([(ms_a - ms_c) / b / r, (ms_b - ms_c) / a / r, (ms_c - ms_e) / r, ms_e])


def spread_of_twins(v):
    each = np.var(np.asarray(v), axis=2, ddof=1)
    return each.mean(axis=1), each.mean(axis=0)


fails = ("c", "a")
""",
        "the expectations solved as a linear system": """
def components(v):
    a, b, r = v.shape
    pair = v.mean(2)
    row, column = pair.mean(1, keepdim=True), pair.mean(0, keepdim=True)
    rest = pair - row - column + pair.mean()
    squares = torch.stack([
        b * r * row.var(), a * r * column.var(), r * rest.square().sum() / ((a - 1) * (b - 1)), v.var(2).mean()
    ])
    expected = torch.tensor([[b * r, 0, r, 1], [0, a * r, r, 1], [0, 0, r, 1], [0, 0, 0, 1]], dtype=v.dtype)
    return torch.linalg.solve(expected, squares)


def spread_of_twins(v):
    each = np.var(np.asarray(v), axis=2, ddof=1)
    return each.mean(axis=1), each.mean(axis=0)


fails = ("c", "a")
""",
    },
    "q4": {
        "SciPy's paired test": """
def paired(first, second, d, level=0.95, power=0.8):
    interval = stats.ttest_rel(first, second).confidence_interval(level)
    variance = np.var(first, ddof=1) + np.var(second, ddof=1) - 2 * np.cov(first, second)[0, 1]
    z = stats.norm.isf((1 - level) / 2) - stats.norm.isf(power)
    return interval.low, interval.high, z**2 * variance / d**2
""",
    },
    "q5": {
        "the stream kept by hand, one loop, and an array": """
def train_svgp(x, y, start, order, epochs=4, size=50):
    state = torch.get_rng_state()
    model = SVGP(first_points(x, torch.Generator().manual_seed(start)))
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double().train()
    torch.manual_seed(start)
    elbo = gpytorch.mlls.VariationalELBO(likelihood, model.train(), len(y))
    optimiser = torch.optim.Adam([{"params": model.parameters()}, {"params": likelihood.parameters()}], lr=0.05)
    generator = torch.Generator().manual_seed(order)
    for rows in (rows for _ in range(epochs) for rows in batches(len(y), size, generator)):
        optimiser.zero_grad()
        loss = -elbo(model(x[rows]), y[rows])
        loss.backward()
        optimiser.step()
    torch.set_rng_state(state)
    model.eval()
    return model(GRID).mean.detach().numpy()
""",
    },
    "q6": {
        "the symmetric part twice, by traces": """
def deviation(M, kind):
    variance = torch.trace(M @ M) + torch.trace(M @ M.T)
    return torch.sqrt(variance - (2 * (M.diagonal() ** 2).sum() if kind == "signs" else 0))
""",
        "all signs counted": """
def deviation(M, kind):
    if kind == "normal":
        return float((M + M.T).norm()) / math.sqrt(2)
    z = torch.tensor(list(product((-1.0, 1.0), repeat=len(M))), dtype=M.dtype)
    return ((z @ M) * z).sum(1).std(correction=0)
""",
    },
    "q7": {
        "the densities without GPyTorch's settings": """
def ahead(first, second):
    found = []
    for model in (first, second):
        x, y = model.train_inputs[0], model.train_targets
        with torch.no_grad():
            A = model.covar_module(x).to_dense() + model.likelihood.noise * torch.eye(len(y), dtype=x.dtype)
            normal = torch.distributions.MultivariateNormal(model.mean_module(x), A)
            found.append(float(normal.log_prob(y)))
    return found[0] - found[1]


moves = {"likelihood of 800": False, "mean of 801": False, "seeded": False}
moves |= {"likelihood of 801": True, "gradient of 801": True, "thousand probes": True}
""",
    },
    "q8": {
        "one probe after another, and half of the signs": """
def bias_and_scatter(A, steps, probes=1):
    z = signs(len(A))
    half = z[:, z[0] > 0]
    values = np.array([float(quadrature(A, column.unsqueeze(1), steps)) for column in half.T])
    return values.mean() - np.linalg.slogdet(A.numpy())[1], np.sqrt(values.var() / probes)
""",
    },
    "q10": {
        "by the function of question 8, for lists of probes": {
            "estimates.var(correction=0)": "(estimates.square().mean() - estimates.mean() ** 2)"
        },
    },
}

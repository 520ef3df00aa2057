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
        "the standard deviation of a probe, not of the mean": {"values.std() / math.sqrt(len(values))": "values.std()"},
        "divides by the number of rows": {"len(values)": "len(probes)"},
        "the number of probes in the denominator of the variance": {"values.std()": "values.std(correction=0)"},
        "takes rows for probes": {"multiply(probes)).sum(0)": "multiply(probes)).sum(1)"},
    },
    "q6": {
        "the formula for symmetric matrices for all": {"S = (M + M.T) / 2": "S = M"},
        "the upper triangle twice": {"S = (M + M.T) / 2": "S = M.triu() + M.triu(1).T"},
        "forgets the factor two": {"variance = 2 * S": "variance = S", "variance - 2 * S": "variance - S"},
        "returns the variance": {"variance.sqrt()": "variance"},
    },
    "q7": {
        "residuals' own squares in the steps": {
            "(r @ z) / (p @ Ap)": "(r @ r) / (p @ Ap)",
            "r @ z, r - step * Ap": "r @ r, r - step * Ap",
            "(r @ z) / old": "(r @ r) / old",
        },
        "the preconditioner for the first direction only": {"        z = solve(r)\n": "        z = r\n"},
        "conjugate gradients on the system multiplied by the inverse of P, which is not symmetric": """
def preconditioned(A, b, solve, steps):
    return conjugate_gradients(torch.stack([solve(column) for column in A.T]).T, solve(b), steps)
""",
        "stops at a residual that is small by itself": {
            "Ap = A @ p": "if r.norm() < 1e-8:\n            break\n        Ap = A @ p"
        },
        "updates b in place": {
            "    p = z\n": "    p = z.clone()\n",
            "s, old, r = s + step * p, r @ z, r - step * Ap": (
                "old = r @ z\n        s += step * p\n        r -= step * Ap"
            ),
        },
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
        "takes the first sentence for the wrong one": """
wrong = "a"
z = signs(8)
number = (quadrature(eight(), z, 3) - (z * (logarithm(eight()) @ z)).sum(0)).min()
""",
        "guesses the letter and makes up the number": """
wrong = "b"
number = 9.0
""",
        "a sample's standard deviation": {"std(correction=0)": "std()"},
        "three steps in place of eight": {"signs(8), 8)": "signs(8), 3)"},
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
        "a loop over the probes": """
def trace_estimate(multiply, probes):
    values = [float(z @ multiply(z.unsqueeze(1))[:, 0]) for z in probes.T]
    return np.mean(values), stats.sem(values)
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
        "another formula for the next direction": """
def preconditioned(A, b, solve, steps):
    s, r = torch.zeros_like(b), b.clone()
    z = solve(r)
    p = z.clone()
    for _ in range(steps):
        Ap = A @ p
        step = (r @ p) / (p @ Ap)
        s, r_new = s + step * p, r - step * Ap
        z_new = solve(r_new)
        p = z_new + (z_new @ (r_new - r)) / (z @ r) * p
        r, z = r_new, z_new
    return s
""",
        "the best solution in the space of the first directions": """
def preconditioned(A, b, solve, steps):
    basis = []
    v = solve(b)
    for _ in range(steps):
        for _ in range(2):
            for u in basis:
                v = v - (u @ v) * u
        basis.append(v / v.norm())
        v = solve(A @ basis[-1])
    V = torch.stack(basis, dim=1)
    return V @ torch.linalg.solve(V.T @ A @ V, V.T @ b)
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
        "the exact formula for signs": """
wrong = "b"
M = logarithm(eight())
number = math.sqrt(2 * (M.square().sum() - M.diagonal().square().sum()))
""",
    },
}

"""Answers to stochastic that are wrong, and others that are right, for the tests of the marking."""

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
        "compares sums, which a permutation does not change": """
def deciders(run):
    def result(other=None):
        for name, seed in SEED.items():
            seed(1 if name == other else 0)
        return run().sum().item()

    with generators_kept():
        base = result()
        if base != result():
            return ["entropy"]
        return [name for name in SEED if base != result(name)]
""",
        "takes nearly equal results as equal": """
def deciders(run):
    def result(other=None):
        for name, seed in SEED.items():
            seed(1 if name == other else 0)
        return run()

    with generators_kept():
        base = result()
        if not torch.allclose(base, result()):
            return ["entropy"]
        return [name for name in SEED if not torch.allclose(base, result(name))]
""",
        "leaves the generators seeded": """
def deciders(run):
    def result(other=None):
        for name, seed in SEED.items():
            seed(1 if name == other else 0)
        return run()

    base = result()
    if not torch.equal(base, result()):
        return ["entropy"]
    return [name for name in SEED if not torch.equal(base, result(name))]
""",
        "does not know of fresh entropy": """
def deciders(run):
    def result(other=None):
        for name, seed in SEED.items():
            seed(1 if name == other else 0)
        return run()

    with generators_kept():
        base = result()
        return [name for name in SEED if not torch.equal(base, result(name))]
""",
    },
    "q2": {
        "no bias correction": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    m = v = shift = torch.zeros_like(gradients[0])
    for g in gradients:
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        shift = shift - lr * m / (v.sqrt() + eps)
    return shift
""",
        "eps under the square root": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    m = v = shift = torch.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        shift = shift - lr * (m / (1 - betas[0] ** t)) / (v / (1 - betas[1] ** t) + eps**2).sqrt()
    return shift
""",
        "the bias correction of the first step in every step": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    m = v = shift = torch.zeros_like(gradients[0])
    for g in gradients:
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        shift = shift - lr * (m / (1 - betas[0])) / ((v / (1 - betas[1])).sqrt() + eps)
    return shift
""",
        "the usual betas, whatever is asked for": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    m = v = shift = torch.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        shift = shift - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + eps)
    return shift
""",
        "the mean gradient in each step, as on the full batch": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    m = v = shift = torch.zeros_like(gradients[0])
    g = gradients.mean(0)
    for t in range(1, len(gradients) + 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        shift = shift - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return shift
""",
        "squares the gradients in place": """
def adam_shift(gradients, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
    m = v = shift = torch.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g.pow_(2)
        shift = shift - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return shift
""",
    },
    "q3": {
        "mean squares of the effects without the interaction taken off": """
def components(v):
    a, b, r = v.shape
    pair, start, order = v.mean(2), v.mean((1, 2)), v.mean((0, 2))
    rest = pair - start[:, None] - order + v.mean()
    rounding = (v - pair[..., None]).square().sum() / (a * b * (r - 1))
    return start.var(), order.var(), rest.square().sum() / ((a - 1) * (b - 1)), rounding
""",
        "takes rounding in place of the interaction off the main effects, as for fixed effects": """
def components(v):
    a, b, r = v.shape
    pair, start, order = v.mean(2), v.mean((1, 2)), v.mean((0, 2))
    rest = pair - start[:, None] - order + v.mean()
    rounding = (v - pair[..., None]).square().sum() / (a * b * (r - 1))
    ms_rest = r * rest.square().sum() / ((a - 1) * (b - 1))
    return start.var() - rounding / (b * r), order.var() - rounding / (a * r), (ms_rest - rounding) / r, rounding
""",
        "exchanges the numbers of starts and orders in what is taken off": """
def components(v):
    a, b, r = v.shape
    pair, start, order = v.mean(2), v.mean((1, 2)), v.mean((0, 2))
    rest = pair - start[:, None] - order + v.mean()
    rounding = (v - pair[..., None]).square().sum() / (a * b * (r - 1))
    ms_rest = r * rest.square().sum() / ((a - 1) * (b - 1))
    return start.var() - ms_rest / (a * r), order.var() - ms_rest / (b * r), (ms_rest - rounding) / r, rounding
""",
        "the degrees of freedom of two twins, for any number": """
def components(v):
    a, b, r = v.shape
    pair, start, order = v.mean(2), v.mean((1, 2)), v.mean((0, 2))
    rest = pair - start[:, None] - order + v.mean()
    rounding = (v - pair[..., None]).square().sum() / (a * b)
    ms_rest = r * rest.square().sum() / ((a - 1) * (b - 1))
    return start.var() - ms_rest / (b * r), order.var() - ms_rest / (a * r), (ms_rest - rounding) / r, rounding
""",
        "cuts off an interaction below zero": """
def components(v):
    a, b, r = v.shape
    pair, start, order = v.mean(2), v.mean((1, 2)), v.mean((0, 2))
    rest = pair - start[:, None] - order + v.mean()
    rounding = (v - pair[..., None]).square().sum() / (a * b * (r - 1))
    ms_rest = r * rest.square().sum() / ((a - 1) * (b - 1))
    interaction = ((ms_rest - rounding) / r).clamp_min(0)
    return start.var() - ms_rest / (b * r), order.var() - ms_rest / (a * r), interaction, rounding
""",
        "variances with the number of effects in the denominator": """
def components(v):
    a, b, r = v.shape
    pair, start, order = v.mean(2), v.mean((1, 2)), v.mean((0, 2))
    rest = pair - start[:, None] - order + v.mean()
    return (
        start.var(correction=0), order.var(correction=0), rest.square().mean(), (v - pair[..., None]).square().mean()
    )
""",
    },
    "q4": {
        "two independent samples": """
def paired(first, second, d, level=0.95, power=0.8):
    n, mean, variance = len(first), first.mean() - second.mean(), first.var(ddof=1) + second.var(ddof=1)
    half = stats.t.ppf((1 + level) / 2, 2 * n - 2) * math.sqrt(variance / n)
    z = stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)
    return mean - half, mean + half, z**2 * variance / d**2
""",
        "normal quantiles for ten pairs": """
def paired(first, second, d, level=0.95, power=0.8):
    difference = first - second
    half = stats.norm.ppf((1 + level) / 2) * difference.std(ddof=1) / math.sqrt(len(first))
    pairs = ((stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) * difference.std(ddof=1) / d) ** 2
    return difference.mean() - half, difference.mean() + half, pairs
""",
        "twice the pairs, as for two samples": """
def paired(first, second, d, level=0.95, power=0.8):
    difference = first - second
    half = stats.t.ppf((1 + level) / 2, len(first) - 1) * difference.std(ddof=1) / math.sqrt(len(first))
    pairs = 2 * ((stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) * difference.std(ddof=1) / d) ** 2
    return difference.mean() - half, difference.mean() + half, pairs
""",
        "one-sided quantiles": """
def paired(first, second, d, level=0.95, power=0.8):
    difference = first - second
    half = stats.t.ppf(level, len(first) - 1) * difference.std(ddof=1) / math.sqrt(len(first))
    pairs = ((stats.norm.ppf(level) + stats.norm.ppf(power)) * difference.std(ddof=1) / d) ** 2
    return difference.mean() - half, difference.mean() + half, pairs
""",
        "level and power as usual, whatever is asked for": """
def paired(first, second, d, level=0.95, power=0.8):
    difference = first - second
    half = stats.t.ppf(0.975, len(first) - 1) * difference.std(ddof=1) / math.sqrt(len(first))
    pairs = ((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * difference.std(ddof=1) / d) ** 2
    return difference.mean() - half, difference.mean() + half, pairs
""",
        "NumPy's standard deviation, with n in the denominator": """
def paired(first, second, d, level=0.95, power=0.8):
    difference = first - second
    half = stats.t.ppf((1 + level) / 2, len(first) - 1) * difference.std() / math.sqrt(len(first))
    pairs = ((stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) * difference.std() / d) ** 2
    return difference.mean() - half, difference.mean() + half, pairs
""",
    },
    "q5": {
        "the standard deviation of a probe, not of the mean": """
def trace_estimate(multiply, probes):
    values = (probes * multiply(probes)).sum(0)
    return values.mean(), values.std()
""",
        "divides by the number of rows": """
def trace_estimate(multiply, probes):
    values = (probes * multiply(probes)).sum(0)
    return values.mean(), values.std() / math.sqrt(len(probes))
""",
        "the number of probes in the denominator of the variance": """
def trace_estimate(multiply, probes):
    values = (probes * multiply(probes)).sum(0)
    return values.mean(), values.std(correction=0) / math.sqrt(len(values))
""",
        "takes rows for probes": """
def trace_estimate(multiply, probes):
    values = (probes * multiply(probes)).sum(1)
    return values.mean(), values.std() / math.sqrt(len(values))
""",
    },
    "q6": {
        "the formula for symmetric matrices for all": """
def deviation(M, kind):
    variance = 2 * M.square().sum()
    if kind == "signs":
        variance = variance - 2 * M.diagonal().square().sum()
    return variance.sqrt()
""",
        "the upper triangle twice": """
def deviation(M, kind):
    off = 2 * M.triu(1).square().sum()
    return (2 * (off + (M.diagonal().square().sum() if kind == "normal" else 0))).sqrt()
""",
        "forgets the factor two": """
def deviation(M, kind):
    S = (M + M.T) / 2
    return (S if kind == "normal" else S - S.diagonal().diag()).norm()
""",
        "returns the variance": """
def deviation(M, kind):
    S = (M + M.T) / 2
    return 2 * (S if kind == "normal" else S - S.diagonal().diag()).square().sum()
""",
    },
    "q7": {
        "residuals' own squares in the steps": """
def preconditioned(A, b, solve, steps):
    s, r = torch.zeros_like(b), b
    p = solve(r)
    for _ in range(steps):
        Ap = A @ p
        step = (r @ r) / (p @ Ap)
        s, old, r = s + step * p, r @ r, r - step * Ap
        p = solve(r) + (r @ r) / old * p
    return s
""",
        "the preconditioner for the first direction only": """
def preconditioned(A, b, solve, steps):
    s, r = torch.zeros_like(b), b
    p, z = solve(r), solve(r)
    for _ in range(steps):
        Ap = A @ p
        step = (r @ z) / (p @ Ap)
        s, old, r = s + step * p, r @ z, r - step * Ap
        z = r
        p = z + (r @ z) / old * p
    return s
""",
        "conjugate gradients on the system multiplied by the inverse of P, which is not symmetric": """
def preconditioned(A, b, solve, steps):
    return conjugate_gradients(torch.stack([solve(column) for column in A.T]).T, solve(b), steps)
""",
        "stops at a residual that is small by itself": """
def preconditioned(A, b, solve, steps):
    s, r = torch.zeros_like(b), b
    z = solve(r)
    p = z
    for _ in range(steps):
        if r.norm() < 1e-8:
            break
        Ap = A @ p
        step = (r @ z) / (p @ Ap)
        s, old, r = s + step * p, r @ z, r - step * Ap
        z = solve(r)
        p = z + (r @ z) / old * p
    return s
""",
        "updates b in place": """
def preconditioned(A, b, solve, steps):
    s, r = torch.zeros_like(b), b
    z = solve(r).clone()
    p = z.clone()
    for _ in range(steps):
        Ap = A @ p
        old = r @ z
        step = old / (p @ Ap)
        s += step * p
        r -= step * Ap
        z = solve(r).clone()
        p = z + (r @ z) / old * p
    return s
""",
    },
    "q8": {
        "the average of the biases divided like a scatter": """
def bias_and_scatter(A, steps, probes=1):
    estimates = quadrature(A, signs(len(A)), steps)
    bias = estimates.mean() - torch.linalg.slogdet(A).logabsdet
    return bias / math.sqrt(probes), estimates.std(correction=0) / math.sqrt(probes)
""",
        "divides the standard deviation by the number of probes": """
def bias_and_scatter(A, steps, probes=1):
    estimates = quadrature(A, signs(len(A)), steps)
    return estimates.mean() - torch.linalg.slogdet(A).logabsdet, estimates.std(correction=0) / probes
""",
        "a sample's standard deviation for the whole": """
def bias_and_scatter(A, steps, probes=1):
    estimates = quadrature(A, signs(len(A)), steps)
    return estimates.mean() - torch.linalg.slogdet(A).logabsdet, estimates.std() / math.sqrt(probes)
""",
        "random probes in place of all": """
def bias_and_scatter(A, steps, probes=1):
    z = torch.tensor(np.random.default_rng(0).choice([-1.0, 1.0], (len(A), 1000)))
    estimates = quadrature(A, z, steps)
    return estimates.mean() - torch.linalg.slogdet(A).logabsdet, estimates.std(correction=0) / math.sqrt(probes)
""",
        "the distance from the exact quadratic forms as scatter": """
def bias_and_scatter(A, steps, probes=1):
    z = signs(len(A))
    error = quadrature(A, z, steps) - quadrature(A, z, len(A))
    return error.mean(), error.std(correction=0) / math.sqrt(probes)
""",
    },
    "q9": {
        "more probes cure all": """
shrinks = {"probes": "both", "steps": "bias", "tolerance": "neither", "seed": "neither", "preconditioner": "both"}
""",
        "a seed takes the scatter away": """
shrinks = {"probes": "scatter", "steps": "bias", "tolerance": "neither", "seed": "scatter", "preconditioner": "both"}
""",
        "the tolerance takes the bias of the determinant away": """
shrinks = {"probes": "scatter", "steps": "bias", "tolerance": "bias", "seed": "neither", "preconditioner": "both"}
""",
        "a preconditioner leaves the scatter": """
shrinks = {"probes": "scatter", "steps": "bias", "tolerance": "neither", "seed": "neither", "preconditioner": "bias"}
""",
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
        "a sample's standard deviation": """
wrong = "b"
number = quadrature(eight(), signs(8), 8).std()
""",
        "three steps in place of eight": """
wrong = "b"
number = quadrature(eight(), signs(8), 3).std(correction=0)
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

"""Wrong answers to initialisation, and other right ones: texts, or changes to the solution (see ``tests``)."""

MUTANTS = {
    "q1": {
        "takes the average of the data for the best mean": {"(one * target).sum() / one.square().sum()": "y.mean()"},
        "divides by n - 1, as if for an unbiased variance": {
            "(target - mean * one).square().mean()": "(target - mean * one).square().sum() / (n - 1)"
        },
        "adds the square of the ratio, as if it were one of standard deviations": {"+ ratio *": "+ ratio**2 *"},
        "returns the loss per datum": {"(n * torch.log": "(torch.log", "+ log_det + n)": "+ log_det / n + 1)"},
        "cuts the graph, so that nothing can be trained": {
            "scaled, n =": (
                "lengthscale, ratio = torch.as_tensor(lengthscale).detach(), torch.as_tensor(ratio).detach()\n"
                "    scaled, n ="
            )
        },
        "takes the logarithm of a determinant, which underflows for many rows": {
            "2 * L.diagonal().log().sum()": "(C + ratio * torch.eye(n, dtype=x.dtype)).det().log()"
        },
        "expands the squared distances, and cancels far from zero": {
            "C = torch.exp(-0.5 * (scaled[:, None] - scaled).square().sum(-1))": (
                "norms = scaled.square().sum(-1)\n"
                "    C = torch.exp(-0.5 * (norms[:, None] + norms - 2 * scaled @ scaled.mT).clamp_min(0))"
            )
        },
        "compares the first column only": {"x / lengthscale": "x[:, :1] / lengthscale.reshape(-1)[0]"},
    },
    "q2": {
        "keeps every end, plateaus too": {"is_new and eigvalsh(hessian(loss, place)).min() > 1e-3": "is_new"},
        "asks for a slope that vanishes, and not for curvature": {
            "if is_new and eigvalsh(hessian(loss, place)).min() > 1e-3:": (
                "theta = place.clone().requires_grad_()\n"
                "        (slope,) = torch.autograd.grad(loss(theta), theta)\n"
                "        if is_new and slope.abs().max() < 1e-3:"
            )
        },
        "counts an optimum once for each start": {
            "all((place - other).abs().max() > 0.01 for other in places)": "True"
        },
        "leaves the optima in the order of the starts": {"    places.sort(key=lambda place: loss(place).item())\n": ""},
        "takes the best end alone": {
            "torch.stack([loss(place) for place in places])": "loss(places[0])[None]",
            "torch.stack(places)": "places[0][None]",
        },
        "takes the size of the curvatures, so that a saddle passes": {"place)).min()": "place)).abs().min()"},
        "takes ends of one loss for one optimum": {"(place - other).abs().max()": "abs(loss(place) - loss(other))"},
        "looks along the coordinates alone": {"eigvalsh(hessian(loss, place))": "hessian(loss, place).diagonal()"},
    },
    "q3": {
        "moves both terms together": {"H[:p, :p] - H[": "H[:p, :p] + H["},
        "forgets that the other term moves too": {" - H[:p, p : 2 * p]": ""},
        "moves the first term only": {"[v, -v,": "[v, 0 * v,", " / math.sqrt(2)": ""},
        "takes the largest second derivative": {
            "v = vectors[:, 0]": "curvatures, v = curvatures.flip(0), vectors[:, -1]"
        },
        "trains from the tie without a nudge": {"theta + 0.1 * d": "theta"},
        "always nudges and trains, whatever the curvature": {" if curvatures[0] < -1e-3 else theta": ""},
        "nudges always, and keeps what is lower": {
            " if curvatures[0] < -1e-3 else theta": "\n    end = end if loss(end) < loss(theta) - 1e-6 else theta"
        },
        "a shorter nudge whatever the curvature": {
            "descend(loss, theta + 0.1 * d) if curvatures[0] < -1e-3 else theta": "descend(loss, theta + 0.01 * d)"
        },
        "takes the lowest of all directions, though it may keep the tie": """
def untie(loss, theta, p):
    curvatures, vectors = eigh(hessian(loss, theta))
    d = vectors[:, 0]
    end = descend(loss, theta + 0.1 * d) if curvatures[0] < -1e-3 else theta
    return curvatures[0], d, end
""",
        "has the two parameters of an RBF term built in": {
            "H = hessian(loss, theta)": "p, H = min(p, 2), hessian(loss, theta)"
        },
    },
    "q4": {
        "takes the largest variance left, as chapter 4 does": {"left.square().sum(0) / variance": "variance"},
        "does not divide by the variance of the row": {"left.square().sum(0) / variance": "left.square().sum(0)"},
        "ranks the rows once, and never updates": {
            "for _ in range(m):": (
                "return (left.square().sum(0) / left.diagonal()).topk(m).indices.tolist()\n    for _ in range(m):"
            )
        },
        "adds covariances without squaring them": {"left.square().sum(0) / variance": "left.sum(0) / variance.sqrt()"},
        "divides by the variance at the start": {
            "left.square().sum(0) / variance": "left.square().sum(0) / K.diagonal()"
        },
        "leaves out chosen rows, but not rows that stand where they do": {
            "torch.where(variance > 1e-9 * K.diagonal().max(), ": "",
            " / variance, 0.0)": " / variance\n        gain[chosen] = -1.0",
        },
        "takes every variance for one at the start": {
            "K.clone()": "K / K.diagonal().sqrt()[:, None] / K.diagonal().sqrt()"
        },
    },
    "q5": {
        "has no trace at all": {" - 0.5 * unexplained.sum()": ""},
        "forgets the half": {"- 0.5 * unexplained": "- unexplained"},
        "divides the trace by the average noise variance": {".diagonal() / noise": ".diagonal() / noise.mean()"},
        "adds the variances up before it divides": {"diagonal() / noise": "trace() / noise.sum()"},
        "takes the noise variances for standard deviations": {"L = cholesky(": "noise = noise**2\n    L = cholesky("},
        "has the sign of the gap the other way": {
            "-gaussian_loss(K_xx + noise.diag(), y) - bound": "bound + gaussian_loss(K_xx + noise.diag(), y)"
        },
        "adds no jitter, though inducing points may coincide": {
            "K_zz + 1e-10 * torch.eye(len(K_zz), dtype=y.dtype)": "K_zz"
        },
        "solves without jitter, and meets a singular matrix": {
            (
                "L = cholesky(K_zz + 1e-10 * torch.eye(len(K_zz), dtype=y.dtype))\n"
                "    A = solve_triangular(L, K_xz.mT, upper=False)\n"
                "    Q = A.mT @ A"
            ): "Q = K_xz @ K_zz.inverse() @ K_xz.mT"
        },
        "adds a jitter that is a model of its own": {"+ 1e-10 * torch": "+ 1e-3 * torch"},
    },
    "q6": {
        "measures well and takes b": {'wrong = "c"': 'wrong = "b"'},
        "guesses c and measures nothing": """
measured = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 0.0}
wrong = "c"
""",
        "compares bounds per datum": {
            ('"b": (extended - bounds).min(),\n    "c": bounds.max() - bounds[smallest],'): (
                '"b": (extended - bounds).min() / 200,\n    "c": (bounds.max() - bounds[smallest]) / 200,'
            )
        },
        "takes the set with the largest trace": {"np.argmin": "np.argmax"},
        "takes the largest change in place of the smallest": {"(extended - bounds).min()": "(extended - bounds).max()"},
        "compares posterior covariances in place of prior ones": {
            "(prior_covariance(": "(posterior(",
            "sensors) for rows in sets[:2]": "sensors).covariance_matrix for rows in sets[:2]",
        },
    },
}

ACCEPTED = {
    "q1": {
        "inverts, takes the signed logarithm of the determinant, and warns": """
import warnings


def profile(x, y, lengthscale, ratio):
    warnings.warn("an inverse is no good habit")
    n = len(x)
    differences = (x[:, None, :] - x[None, :, :]) / lengthscale
    A = torch.exp(-(differences**2).sum(-1) / 2) + ratio * torch.eye(n, dtype=x.dtype)
    inverse, ones = torch.linalg.inv(A), torch.ones(n, dtype=x.dtype)
    mean = ones @ inverse @ y / (ones @ inverse @ ones)
    outputscale = (y - mean) @ inverse @ (y - mean) / n
    loss = n / 2 * torch.log(2 * torch.pi * outputscale) + torch.slogdet(A)[1] / 2 + n / 2
    return loss, mean, outputscale
""",
        "centres the inputs, and asks PyTorch for the density": """
def profile(x, y, lengthscale, ratio):
    scaled = (x - x.mean(0)) / lengthscale
    C = torch.exp(-0.5 * torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist") ** 2)
    A = C + ratio * torch.eye(len(x), dtype=x.dtype)
    solved = torch.linalg.solve(A, torch.stack([torch.ones_like(y), y], -1))
    mean = solved[:, 1].sum() / solved[:, 0].sum()
    outputscale = (y - mean) @ (solved[:, 1] - mean * solved[:, 0]) / len(y)
    density = MultivariateNormal(mean.expand(len(y)), outputscale * A)
    return -density.log_prob(y), mean, outputscale
""",
    },
    "q2": {
        "has its own descent, with SciPy's BFGS, and polishes with Newton's method": """
def optima(loss, starts):
    def run(start):
        def f(t):
            t = torch.tensor(t, requires_grad=True)
            v = loss(t)
            v.backward()
            return float(v), t.grad.numpy()

        place = torch.tensor(minimize(f, start.numpy(), jac=True, method="BFGS", options={"gtol": 1e-6}).x)
        if eigvalsh(hessian(loss, place)).min() > 1e-3:
            theta = place.clone().requires_grad_()
            (slope,) = torch.autograd.grad(loss(theta), theta)
            place = place - torch.linalg.solve(hessian(loss, place), slope)
        return place

    found = {}
    for place in map(run, starts):
        if eigvalsh(hessian(loss, place))[0] > 1e-3:
            found.setdefault(tuple((place / 0.01).round().tolist()), place)
    places = sorted(found.values(), key=loss)
    return torch.tensor([float(loss(place)) for place in places]).double(), torch.stack(places)
""",
    },
    "q3": {
        "projects the whole matrix on a basis, and returns the other sign": """
def untie(loss, theta, p):
    basis = torch.zeros(len(theta), p).double()
    for i in range(p):
        basis[i, i], basis[p + i, i] = 0.5**0.5, -(0.5**0.5)
    H = hessian(loss, theta)
    values, vectors = np.linalg.eigh((basis.T @ H @ basis).numpy())
    d = -basis @ torch.from_numpy(vectors[:, 0])
    if values[0] >= -1e-3:
        return torch.tensor(values[0]), d, theta
    return torch.tensor(values[0]), d, descend(loss, theta + 0.1 * d)
""",
    },
    "q4": {
        "starts afresh at each step, in NumPy, and leaves out what has no variance": """
def choose(K, m):
    K, chosen = K.numpy(), []
    for _ in range(m):
        R = K - K[:, chosen] @ np.linalg.pinv(K[np.ix_(chosen, chosen)]) @ K[chosen] if chosen else K
        gains = [(R[:, j] ** 2).sum() / R[j, j] if R[j, j] > 1e-8 else 0.0 for j in range(len(K))]
        chosen.append(int(np.argmax(gains)))
    return chosen
""",
        "leaves rounding where it is, and not a number out": """
def choose(K, m):
    R, rows = K, []
    for _ in range(m):
        gains = ((R * R).sum(1) / R.diag().clamp(min=1e-12)).tolist()
        j = max(range(len(K)), key=gains.__getitem__)
        rows.append(j)
        R = R - R[:, [j]] @ R[[j]] / R[j, j]
    return rows
""",
    },
    "q5": {
        "uses the identities of Woodbury and Sylvester": """
def bound_and_gap(K_xx, K_xz, K_zz, y, noise):
    L = cholesky(K_zz + 1e-10 * torch.eye(len(K_zz)))
    A = solve_triangular(L, K_xz.T, upper=False)
    B = cholesky(torch.eye(len(A), dtype=y.dtype) + (A / noise) @ A.T)
    v = solve_triangular(B, (A / noise) @ y[:, None], upper=False)
    log_det = 2 * B.diagonal().log().sum() + noise.log().sum()
    misfit = (y**2 / noise).sum() - v.square().sum()
    trace = ((K_xx.diagonal() - A.square().sum(0)) / noise).sum()
    bound = -(len(y) * math.log(2 * math.pi) + log_det + misfit + trace) / 2
    return bound, MultivariateNormal(0 * y, K_xx + noise.diag()).log_prob(y) - bound
""",
        "takes a pseudo-inverse and no jitter": """
def bound_and_gap(K_xx, K_xz, K_zz, y, noise):
    Q = K_xz @ torch.linalg.pinv(K_zz, hermitian=True) @ K_xz.T
    Q = (Q + Q.T) / 2
    bound = -gaussian_loss(Q + torch.diag(noise), y) - ((K_xx - Q).diagonal() / noise / 2).sum()
    return bound, -gaussian_loss(K_xx + torch.diag(noise), y) - bound
""",
    },
    "q6": {
        "computes the bounds in plain torch": """
def plain_bound(z):
    K_zx = rbf(z, sensors)
    Q = K_zx.T @ torch.linalg.solve(rbf(z, z) + 1e-10 * torch.eye(len(z)).double(), K_zx)
    return float(-gaussian_loss((Q + Q.T) / 2 + 0.1 * torch.eye(200).double(), windy) - (200 - Q.trace()) / 0.2)


gaps = [float(log_p) - plain_bound(sensors[rows]) for rows in sets]
gaps_9 = [float(log_p) - plain_bound(torch.cat([sensors[rows], extra])) for rows in sets]
traces = [float(trace_left(K_sensors, rows)) for rows in sets]
a, b = (svgp(sensors[rows]).covar_module(sensors).to_dense().detach() for rows in sets[:2])
measured = dict(a=float((a - b).abs().max()), b=min(g - h for g, h in zip(gaps, gaps_9)),
                c=gaps[traces.index(min(traces))] - min(gaps), d=float(log_p) - plain_bound(sensors))
wrong = "c"
""",
    },
}

"""Wrong answers to equal_or_not, and other right ones: texts, or changes to the solution (see ``tests``)."""

MUTANTS = {
    "q1": {
        "on the scale of the largest entry": {"torch.outer(deviation, deviation)": "A.abs().max()"},
        "relative to the entry itself": {"(A - B).abs() / torch.outer(deviation, deviation)": "((A - B) / A).abs()"},
        "on the scale of B": {"deviation = A.diagonal()": "deviation = B.diagonal()"},
        "the place of the largest difference without a scale": {"distance.argmax()": "(A - B).abs().argmax()"},
        "in the precision of the input": {
            "A, B = A.double(), B.double()": "A, B = A, B",
            "torch.outer(deviation, deviation)": "torch.outer(A.diagonal(), A.diagonal()).sqrt()",
        },
        "without the square root": {"A.diagonal().sqrt()": "A.diagonal()"},
        "looks at the diagonal only once the variances differ": {
            "i, j = sorted(divmod(int(distance.argmax()), len(A)))": (
                "if not torch.equal(A.diagonal(), B.diagonal()):\n"
                "        distance = distance.diagonal().diag()\n"
                "    i, j = sorted(divmod(int(distance.argmax()), len(A)))"
            )
        },
    },
    "q2": {
        "eps in place of the unit roundoff": {"for matrix in (A, B)) / 2": "for matrix in (A, B))"},
        "the format of A": {"for matrix in (A, B)) / 2": "for matrix in (A,)) / 2"},
        "ignores the condition number": {" * u * condition_number": " * u"},
        "NaN among the entries gets a verdict": {"for thing in (A, B, distance)": "for thing in (distance,)"},
        "one value in two formats is not equal": {
            "torch.equal(A.double(), B.double())": "A.dtype == B.dtype and torch.equal(A, B)"
        },
        "allclose for equal": {"torch.equal(A.double(), B.double())": "torch.allclose(A.double(), B.double())"},
        "equal where the distance is zero, as if no ruler could miss a change": {
            "torch.equal(A.double(), B.double())": "distance == 0"
        },
        "equal only where the ruler agrees": {
            "torch.equal(A.double(), B.double())": "torch.equal(A.double(), B.double()) and distance == 0"
        },
        "a condition number that is NaN gets a verdict": {"if np.isnan(condition_number)": "if False"},
        "rounding explains all that is singular": {"if not bound < 1": "if False"},
        "undecidable only where the bound is infinite": {"if not bound < 1": "if np.isinf(bound)"},
        "undecidable comes before equal": {
            '    if torch.equal(A.double(), B.double()):\n        return "equal"\n': "",
            '    return "rounding" if': (
                '    if torch.equal(A.double(), B.double()):\n        return "equal"\n    return "rounding" if'
            ),
        },
    },
    "q3": {
        "chapter 2's address of the storage": """
def shared(a, b):
    where = {tensor.untyped_storage().data_ptr() for tensor in holdings(b).values()}
    return sorted(name for name, tensor in holdings(a).items() if tensor.untyped_storage().data_ptr() in where)
""",
        "the address of the first number": """
def shared(a, b):
    where = {tensor.data_ptr() for tensor in holdings(b).values()}
    return sorted(name for name, tensor in holdings(a).items() if tensor.data_ptr() in where)
""",
        "ranges of addresses that overlap": """
def shared(a, b):
    others = [tensor.numpy() for tensor in holdings(b).values()]
    return sorted(
        name for name, tensor in holdings(a).items()
        if any(np.may_share_memory(tensor.numpy(), other) for other in others)
    )
""",
        "equal values": """
def shared(a, b):
    others = list(holdings(b).values())
    return sorted(
        name for name, tensor in holdings(a).items() if any(torch.equal(tensor, other) for other in others)
    )
""",
        "tensors of one name only": """
def shared(a, b):
    others = holdings(b)
    return sorted(
        name for name, tensor in holdings(a).items()
        if name in others and np.shares_memory(tensor.numpy(), others[name].numpy())
    )
""",
        "parameters only": """
def shared(a, b):
    others = [tensor.detach().numpy() for tensor in b.parameters()]
    return sorted(
        name for name, tensor in a.named_parameters()
        if any(np.shares_memory(tensor.detach().numpy(), other) for other in others)
    )
""",
    },
    "q4": {
        "one deepcopy of the whole list": """
def separate(models):
    return copy.deepcopy(models)
""",
        "a shallow copy": """
def separate(models):
    return [copy.copy(model) for model in models]
""",
        "a deepcopy each, and the noise of the sparse model comes apart": """
def separate(models):
    return [copy.deepcopy(model) for model in models]
""",
        "a new likelihood for the kernel": {"= one.likelihood": "= copy.deepcopy(one.likelihood)"},
        "the original's likelihood in both places": {
            "one.covar_module.likelihood = one.likelihood": "one.likelihood = one.covar_module.likelihood"
        },
        "built anew on the same data, without the mean": """
def separate(models):
    copies = []
    for model in models:
        kernel, likelihood = copy.deepcopy(model.covar_module), copy.deepcopy(model.likelihood)
        if isinstance(kernel, InducingPointKernel):
            kernel.likelihood = likelihood
        copies.append(ExactModel(model.train_inputs[0], model.train_targets, kernel, likelihood))
    return copies
""",
        "built anew, and the inducing points are still the original's": """
def separate(models):
    copies = [copy.deepcopy(model) for model in models]
    for model, one in zip(models, copies):
        old = model.covar_module
        if isinstance(old, InducingPointKernel):
            base = copy.deepcopy(old.base_kernel)
            one.covar_module = InducingPointKernel(base, old.inducing_points.detach(), one.likelihood)
    return copies
""",
        "all copies in evaluation mode": {"copy.deepcopy(model)": "copy.deepcopy(model).eval()"},
    },
    "q5": {
        "the state_dict": """
def carry_over(source, target):
    target.load_state_dict(source.state_dict())
""",
        "by way of Python floats": {
            "new = {}": (
                "values = {name: torch.tensor(value.tolist()) for name, value in values.items()}\n        new = {}"
            )
        },
        "the two hyperparameters of the example only": """
def carry_over(source, target):
    lengths = [m for m in source.modules() if getattr(m, "has_lengthscale", False)]
    for old, new in zip(lengths, [m for m in target.modules() if getattr(m, "has_lengthscale", False)]):
        if not new.raw_lengthscale_constraint.check(old.lengthscale):
            raise ValueError("lengthscale")
    for old, new in zip(lengths, [m for m in target.modules() if getattr(m, "has_lengthscale", False)]):
        new.lengthscale = old.lengthscale.detach()
    scaled = [m for m in source.modules() if isinstance(m, ScaleKernel)]
    for old, new in zip(scaled, [m for m in target.modules() if isinstance(m, ScaleKernel)]):
        new.outputscale = old.outputscale.detach()
""",
        "a value outside becomes NaN": {"if not torch.isfinite(new[name]).all():": "if False:"},
        "a value outside is clamped": {
            "constraint.inverse_transform(values[name])": (
                "constraint.inverse_transform(\n"
                "                values[name].clamp(constraint.lower_bound + 1e-6, constraint.upper_bound - 1e-6)\n"
                "            )"
            )
        },
        "raises when half is done": {
            "for name, _, constraint in target": "for name, raw, constraint in target",
            "        for name, raw in target.named_parameters():": (
                "            raw.copy_(new[name])\n        for name, raw in target.named_parameters():"
            ),
        },
        "passes over what has no constraint": {
            "new = {}": "new = dict(target.named_parameters())",
            "            new[name] = values[name] if constraint is None else ": (
                "            if constraint is None:\n                continue\n            new[name] = "
            ),
        },
    },
    "q6": {
        "the default smoothness": {"MaternKernel(nu=1.5)": "MaternKernel()"},
        "one datum, as the numbers come from the file": {
            "ExactModel(x, y.squeeze(-1),": "ExactModel(x[:1], y.squeeze(-1)[:1],"
        },
        "the new inputs are not centred": {"ExactModel(x,": "ExactModel(x - x.mean(0),"},
        "centred in place": {
            "model = ExactModel(x,": (
                "centre = x.mean(0)\n    x -= centre\n    x_new = x_new - centre\n    model = ExactModel(x,"
            )
        },
        "f in place of y": {"model.likelihood(model(x_new))": "model(x_new)"},
        "a look before the noise is edited": {
            "    if noise is not None:": (
                "    with torch.no_grad():\n        model.eval()(x_new)\n    if noise is not None:"
            )
        },
        "f is predicted before the noise is edited": {
            "    if noise is not None:": (
                "    with torch.no_grad():\n        f = model.eval()(x_new)\n    if noise is not None:"
            ),
            "model.likelihood(model(x_new))": "model.likelihood(f)",
        },
        "the file overwrites the noise": {
            "    model.load_state_dict(saved)\n": "",
            "    model.eval()\n": "    model.load_state_dict(saved)\n    model.eval()\n",
        },
        "the new noise goes into the saved numbers": {
            "        model.likelihood.noise = noise\n": (
                "        model.likelihood.noise = noise\n"
                "        raw = model.likelihood.noise_covar.raw_noise.detach()\n"
                "        saved['likelihood.noise_covar.raw_noise'].copy_(raw)\n"
            )
        },
        "the error of all pairs": {"y_new.squeeze(-1)": "y_new"},
        "an error that is not a mean": {".square().mean().sqrt()": ".norm()"},
    },
    "q7": {
        "the noise, and how far its mean is from the right one": """
used = new_model()
before = predict(used, x_seven)
used.likelihood.noise = wide(0.5)
wrong, gap = "b", float((predict(used, x_seven).mean - predict(new_model(noise=0.5), x_seven).mean).abs().max())
""",
        "compared with the right mean, and not with that before the edit": """
used = new_model()
before = predict(used, x_seven)
used.covar_module.outputscale = wide(4.0)
gap = float((predict(used, x_seven).mean - predict(new_model(outputscale=4.0), x_seven).mean).abs().max())
wrong = "d"
""",
        "the letter is guessed": """
wrong, gap = "d", 1.0
""",
        "the covariance, against that before the edit": {
            '"d", float((after.mean - before.mean)': '"a", float((after.covariance_matrix - before.covariance_matrix)'
        },
    },
}

ACCEPTED = {
    "q1": {
        "in NumPy": """
def farthest_entry(A, B):
    A, B = np.asarray(A, dtype=float), np.asarray(B, dtype=float)
    deviation = np.sqrt(np.diag(A))
    distance = np.abs(A - B) / deviation[:, None] / deviation
    i, j = np.unravel_index(np.triu(distance).argmax(), A.shape)
    return distance[i, j], i, j
""",
        "loops, and a tensor for the distance": """
def farthest_entry(A, B):
    A, B, best = A.double(), B.double(), (-1.0, 0, 0)
    for i in range(len(A)):
        for j in range(i, len(A)):
            best = max(best, ((A[i, j] - B[i, j]).abs() / A[i, i].sqrt() / A[j, j].sqrt(), i, j))
    return best
""",
        "through the two correlations, with a warning": """
import warnings


def farthest_entry(A, B):
    warnings.warn("this is slow")
    D = torch.diag(1 / A.double().diagonal().sqrt())
    distance = (D @ A.double() @ D - D @ B.double() @ D).abs().triu()
    place = torch.nonzero(distance == distance.max())[0]
    return distance.max(), place[0], place[1]
""",
    },
    "q2": {
        "in NumPy": """
def decide(A, B, distance, condition_number=1.0):
    single = torch.float32 in (A.dtype, B.dtype)
    A, B = A.numpy().astype(float), B.numpy().astype(float)
    if not (np.isfinite(A).all() and np.isfinite(B).all() and np.isfinite(distance) and condition_number > 0):
        raise ValueError("there is nothing to compare")
    if (A == B).all():
        return "equal"
    bound = len(A) * (np.finfo(np.float32).eps if single else np.finfo(float).eps) * condition_number
    if bound >= 1:
        return "undecidable"
    return "different" if distance > bound else "rounding"
""",
        "with the ruler of chapter 1": """
def decide(A, B, distance, condition_number=1.0):
    if not np.isfinite(distance):
        raise ValueError("distance must be finite")
    coarser = max(A.dtype, B.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    if compare(A.double(), B.double()).equal:  # raises a ValueError for NaN
        return "equal"
    if condition_number != condition_number:
        raise ValueError("condition_number must be a number")
    if condition_number * len(A) * torch.finfo(coarser).eps >= 1:
        return "undecidable"
    line = torch.stack([torch.ones(1), torch.ones(1)]).double()
    seen = compare(line, line + distance, size=len(A), condition_number=condition_number, scale=1, computed_in=coarser)
    return "rounding" if seen.max_abs <= seen.rounding else "different"
""",
    },
    "q3": {
        "by the address of every number": """
def addresses(tensor):
    places = torch.zeros(tensor.shape, dtype=torch.long)
    for size, stride, dim in zip(tensor.shape, tensor.stride(), range(tensor.dim())):
        steps = torch.arange(size) * stride
        places = places + steps.reshape([-1 if d == dim else 1 for d in range(tensor.dim())])
    return {tensor.data_ptr() + tensor.element_size() * place for place in places.flatten().tolist()}


def shared(a, b):
    others = set().union(*[addresses(tensor) for tensor in holdings(b).values()])
    return sorted(name for name, tensor in holdings(a).items() if addresses(tensor) & others)
""",
        "by writing, and putting back": """
def shared(a, b):
    found = set()
    for other in holdings(b).values():
        flat, before = other.data, other.data.clone()
        seen = {name: tensor.clone() for name, tensor in holdings(a).items()}
        flat.fill_(-12345.0)
        found |= {name for name, tensor in holdings(a).items() if not torch.equal(tensor, seen[name])}
        flat.copy_(before)
    return sorted(found)
""",
    },
    "q4": {
        "sparse models are built anew": """
def separate(models):
    copies = []
    for model in models:
        if isinstance(model.covar_module, InducingPointKernel):
            likelihood, kernel = copy.deepcopy(model.likelihood), model.covar_module
            kernel = InducingPointKernel(
                copy.deepcopy(kernel.base_kernel), kernel.inducing_points.detach().clone(), likelihood
            )
            one = ExactModel(model.train_inputs[0].clone(), model.train_targets.clone(), kernel, likelihood)
            one.load_state_dict(model.state_dict())
            one.train(model.training)
        else:
            one = copy.deepcopy(model)
        copies.append(one)
    return copies
""",
        "wherever the kernel sits, and with clones of the data": """
def separate(models):
    copies = [copy.deepcopy(model) for model in models]
    for one in copies:
        for part in one.modules():
            if isinstance(part, InducingPointKernel):
                part.likelihood = one.likelihood
        one.set_train_data(one.train_inputs[0].clone(), one.train_targets.clone(), strict=False)
    return copies
""",
    },
    "q5": {
        "GPyTorch's initialize on a copy, its error translated": """
def carry_over(source, target):
    values = {}
    for name, raw, constraint in source.named_parameters_and_constraints():
        values[name] = (raw if constraint is None else constraint.transform(raw)).detach()
    trial = copy.deepcopy(target)
    for name, raw, constraint in trial.named_parameters_and_constraints():
        if constraint is not None and not constraint.check(values[name]):
            raise ValueError(f"{name} is out of bounds")
        *path, last = name.split(".")
        trial.get_submodule(".".join(path)).initialize(**{last.removeprefix("raw_"): values[name]})
    target.load_state_dict(trial.state_dict())
""",
        "remembers and puts back": """
def carry_over(source, target):
    before = copy.deepcopy(target.state_dict())
    parts = {name: (raw, constraint) for name, raw, constraint in source.named_parameters_and_constraints()}
    for name, raw, constraint in target.named_parameters_and_constraints():
        old, theirs = parts[name]
        value = old.data.clone() if theirs is None else theirs.transform(old.data)
        if constraint is not None:
            value = constraint.inverse_transform(value)
        if not bool(torch.isfinite(value).all()):
            target.load_state_dict(before)
            raise ValueError("cannot set " + name)
        raw.data.copy_(value)
""",
    },
    "q6": {
        "the script, line by line": """
def tuesday(saved, x, y, x_new, y_new, noise=None):
    centre = x.mean(0)
    x, x_new = x - centre, x_new - centre
    y = y.squeeze(-1)
    model = ExactModel(x, y, ScaleKernel(MaternKernel(nu=1.5)))
    model.load_state_dict(saved)
    model.eval()
    with torch.no_grad():
        if noise is not None:
            model.likelihood.noise = noise
        prediction = model.likelihood(model(x_new))
    rmse = (prediction.mean - y_new.squeeze(-1)).square().mean().sqrt()
    return {"mean": prediction.mean, "variance": prediction.variance, "rmse": rmse}
""",
        "with the book's posterior": """
def tuesday(saved, x, y, x_new, y_new, noise=None):
    model = monday_model(x, y[:, 0], lengthscale=1.0, noise=1.0)
    model.load_state_dict(saved)
    if noise is not None:
        model.likelihood.noise = noise
    f = posterior(model, x_new)
    mean, variance = f.mean, f.variance + model.likelihood.noise.detach()
    return {"mean": mean, "variance": variance, "rmse": float(((mean - y_new[:, 0]) ** 2).mean()) ** 0.5}
""",
        "the formulas of the textbook": """
def tuesday(saved, x, y, x_new, y_new, noise=None):
    model = monday_model(x, y.flatten(), lengthscale=1.0, noise=1.0)
    model.load_state_dict(saved)
    noise = model.likelihood.noise if noise is None else noise
    with torch.no_grad():
        kernel, mean = model.covar_module, model.mean_module.constant
        L = torch.linalg.cholesky(kernel(x).to_dense() + noise * torch.eye(len(x)))
        K_new = kernel(x_new, x).to_dense()
        mean = mean + (K_new @ torch.cholesky_solve(y - mean, L)).squeeze(-1)
        reduction = torch.linalg.solve_triangular(L, K_new.mT, upper=False).square().sum(0)
        variance = kernel(x_new, diag=True) - reduction + noise
    error = mean.numpy() - y_new[:, 0].numpy()
    return {"mean": mean.numpy(), "variance": variance.numpy(), "rmse": np.sqrt(np.mean(error**2))}
""",
    },
    "q7": {
        "the mean is scaled by hand": """
old = predict(new_model(), x_seven).mean
used = new_model()
predict(used, x_seven)
used.covar_module.outputscale = wide(4.0)
wrong = "d"
gap = (predict(used, x_seven).mean.numpy() - old.numpy()).__abs__().max().item()
""",
    },
}

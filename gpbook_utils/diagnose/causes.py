"""What is known of each cause: why it makes models differ, what to do about it, and which chapter measures it."""

from __future__ import annotations

from gpbook_utils.diagnose.computed import COMPUTED, Cause

CAUSES: dict[str, Cause] = {
    # Faults of the object, which make other differences: named first.
    "shared-parameters": Cause(
        "Both models hold this very object, so training or editing one changes the other.",
        "Build a likelihood and a kernel for each model, or copy.deepcopy them, and train both again: what the first "
        "had learnt is overwritten.",
        2,
    ),
    "shared-with-data": Cause(
        "A parameter lies in the same memory as data: training it moves the data.",
        "Hand over a copy: inducing_points.clone().",
        2,
    ),
    "shared-within-model": Cause(
        "Two parameters overlap in memory, or one kernel object stands twice in a sum or product, so they cannot be "
        "trained apart.",
        "Create each part anew, or clone() the tensors.",
        2,
    ),
    "stale-cache": Cause(
        "A cache from an earlier prediction outlived a change of the model; only train(), load_state_dict and "
        "set_train_data empty it.",
        "Call model.train() and model.eval() after every edit.",
        2,
    ),
    "mode": Cause(
        "In training mode the call answers another question than in evaluation mode: of an exact GP the prior instead "
        "of the posterior.",
        "Call model.eval() and likelihood.eval() before predicting, on both models; keep modules in nn.ModuleList.",
        2,
    ),
    "target-shape": Cause(
        "Targets of another shape than the prior's are broadcast: of shape (n, 1) they are n data sets of one repeated "
        "value.",
        "train_y.squeeze(-1), and train again: the hyperparameters were fitted to n wrong data sets.",
        2,
    ),
    "no-training-data": Cause(
        "Training data are no part of a state_dict. Without them the model answers with its prior.",
        "model.set_train_data(x, y, strict=False).",
        2,
    ),
    "skipped-transform": Cause(
        "Rows were appended to transformed training inputs as they came, without the model's input transform.",
        "Use condition_on_observations of a current release, or build the model on all data and load the state_dict.",
        2,
    ),
    "other-likelihood": Cause(
        "A part of the model holds a likelihood of its own, as the copy of a sparse kernel does: its noise is another "
        "than the model's, and training moves both.",
        "Hand the model's likelihood to the part after copying.",
        2,
    ),
    "collapsed-inputs": Cause(
        "Training inputs coincide that were different before a cast: float32 holds seven digits, so that times far "
        "from their origin become a few numbers. What was lost before does not come back with double().",
        "Subtract the origin, in float64, in the line that makes the tensor: torch.tensor(t - t[0], "
        "dtype=torch.float64), before any cast.",
        7,
    ),
    "unscaled-targets": Cause(
        "At these hyperparameters the targets are impossible: scaled to mean zero and variance one, they would be more "
        "likely by at least ten nats each. Starting values and priors are made for such targets.",
        "Standardise the targets, and undo it in predictions; or train, with a mean and an outputscale.",
        2,
    ),
    "unscaled-inputs": Cause(
        "At these lengthscales each training input is unrelated to every other, so that between them the model knows "
        "its prior only. Scaled to between zero and one, they make the targets more likely. Starting values are made "
        "for such inputs.",
        "Scale the inputs, x by the same bounds; or start from a lengthscale in their units.",
        3,
    ),
    "not-finite": Cause(
        "NaN or infinite numbers here spread to every quantity.",
        "Find where they came from: a failed training step, or missing data.",
        8,
    ),
    "mixed-dtype": Cause(
        "Parameters and data are in different formats.",
        "model.to(x) and likelihood.to(x) after building.",
        7,
    ),
    "call-raises": Cause(
        "The call raised an error, and none of the changes tried here made it go away.",
        "See the message.",
        11,
    ),
    "not-positive-definite": Cause(
        "The matrix that is factorised is not positive definite in this format: rows that lie close together, little "
        "noise and a coarse format make its least eigenvalue zero or negative.",
        "float64 from the first tensor on; then a larger noise, or one row in place of those that repeat each other.",
        8,
    ),
    "length": Cause(
        "Training inputs, targets and fixed noise must have one length.",
        "Give all of them anew: set_train_data(x, y, strict=False), and a likelihood with one noise for each target.",
        2,
    ),
    "number-of-inputs": Cause(
        "The model is called with another number of tensors than its forward takes.",
        "Pass x as a tuple of the tensors that forward takes.",
        11,
    ),
    "shape-of-x": Cause(
        "x does not have the shape that the model was built for.",
        "Give x the columns of the training inputs, in their order.",
        11,
    ),
    "noise-not-given": Cause(
        "A likelihood of fixed noise knows the noise of the training points only. At other points it adds none, or "
        "raises.",
        "Pass the noise of x: likelihood(model(x), noise=...).",
        2,
    ),
    # Differences in state.
    "parameter": Cause("The parameter has another value.", "Set it, or load the state_dict.", 2),
    "raw-vs-constrained": Cause(
        "One model's raw parameter has the value that the other's constrained parameter has: a softplus lies between.",
        "Set the constrained property (lengthscale, outputscale, noise), not the raw one.",
        2,
    ),
    "rounded-float": Cause(
        "A Python float was assigned: it is rounded to the default dtype, float32, before it reaches a float64 "
        "parameter.",
        "Assign a float64 tensor, or torch.set_default_dtype(torch.float64) before building.",
        7,
    ),
    "column-order": Cause(
        "The same numbers stand in another order of the columns.",
        "Fix the order of the input columns, and of active_dims and ARD lengthscales with it.",
        2,
    ),
    "shape": Cause(
        "The parameter has another shape: another number of dimensions, tasks, models or points.",
        "Build both with the same ard_num_dims, batch_shape and number of tasks.",
        2,
    ),
    "constraint": Cause(
        "The constraint differs, so equal raw values mean different parameters, and training moves them differently.",
        "Give both the same constraint, then set the constrained value.",
        2,
    ),
    "prior": Cause(
        "A prior on a parameter adds its log density to the likelihood: equal covariances, another optimum.",
        "Register the same priors, or none, before comparing likelihoods or training.",
        2,
    ),
    "buffer": Cause(
        "A buffer, state that is not trained, has another value or shape.",
        "Build both with the same arguments, then load the whole state_dict.",
        2,
    ),
    "stale-buffer": Cause(
        "A buffer keeps what was computed from earlier parameters: a call in training mode fills it anew, and then the "
        "model answers otherwise.",
        "Compute it in forward, or whenever the parameters change.",
        2,
    ),
    "input-transform": Cause(
        "The models transform their inputs differently, so equal lengthscales are lengths in other units.",
        "Give both the same input_transform, with the same bounds.",
        2,
    ),
    "outcome-transform": Cause(
        "The models transform their targets differently, and so they answer in other units or of another quantity.",
        "Give both the same outcome_transform.",
        2,
    ),
    "fixed-noise": Cause(
        "The noise of the training points is fixed, and another. It is no part of the state_dict.",
        "Build both likelihoods with the same noise, which is a variance.",
        2,
    ),
    "noise-clamped": Cause(
        "The given noise was below the setting min_fixed_noise, and was raised to it.",
        "with gpytorch.settings.min_fixed_noise(...) around building, or larger noise for both.",
        8,
    ),
    "active-dims": Cause("The kernels look at other columns of x.", "Set active_dims when building the kernel.", 2),
    "random-features": Cause(
        "The kernel drew random features when it was built or first called.",
        "Seed before building, and give num_dims, so that they are part of the state_dict from the start.",
        5,
    ),
    "network-weights": Cause(
        "The weights of a network differ: they are drawn at random when it is built.",
        "Seed before building, or load the state_dict.",
        5,
    ),
    "requires-grad": Cause(
        "A frozen parameter takes another code path: distances are then computed with an exact zero on the diagonal.",
        "Freeze both, or evaluate both under torch.no_grad().",
        7,
    ),
    "structure": Cause(
        "Another module or parameter stands here, or stands in one model only.",
        "Build both models from the same parts.",
        2,
    ),
    "missing-scale-kernel": Cause(
        "One kernel is wrapped in a ScaleKernel, whose outputscale starts at 0.693, not at one.",
        "Wrap both, or set the outputscale to one.",
        2,
    ),
    "model-class": Cause(
        "The models are of different classes, so they compute other things from the same parameters.",
        "Compare models of one class.",
        1,
    ),
    "forward-code": Cause(
        "The classes have one name but other code: forward, or something it calls, differs.",
        "Define the class once and import it.",
        2,
    ),
    "attribute": Cause(
        "A plain attribute differs. It is no part of the state_dict, so loading does not carry it over.",
        "Build both with the same arguments.",
        2,
    ),
    "not-compared": Cause(
        "Whether two plain attributes are equal is not known, for their own comparison raised an error.",
        "Compare them by hand.",
        2,
    ),
    "state-outside-state-dict": Cause(
        "The model holds tensors or modules in plain attributes: no state_dict carries them, no optimiser and no "
        "double() reaches them.",
        "register_buffer or register_parameter; nn.ModuleList instead of a list.",
        2,
    ),
    "jitter": Cause(
        "Jitter on the diagonal is a change of the model. The default depends on the dtype.",
        "Give jitter_val yourself, the same for both; move inducing points apart.",
        8,
    ),
    "inducing-points": Cause(
        "The inducing points differ: the prior does not depend on them, the approximate posterior does.",
        "Use the same inducing points.",
        4,
    ),
    "variational-distribution": Cause(
        "q(u) differs: its mean, its covariance, its kind, or whether it has been initialised.",
        "Train to convergence, or set q(u) to its optimum; use the same kind of distribution.",
        4,
    ),
    "variational-strategy": Cause(
        "Whitened and unwhitened strategies read the same numbers as different distributions q(u).",
        "Use one class of strategy; do not load one's state_dict into the other.",
        4,
    ),
    "training-inputs": Cause("The training inputs differ.", "Give both the same data.", 2),
    "training-targets": Cause("The training targets differ.", "Give both the same data.", 2),
    "training-data": Cause("The training data differ in number or shape.", "Give both the same data.", 2),
    "scaled-inputs": Cause(
        "The training inputs are the same up to shift and scale: one model was normalised, the other not.",
        "One preprocessing for both, also for x, and lengthscales in its units.",
        2,
    ),
    "scaled-targets": Cause(
        "The targets are the same up to shift and scale: standardised differently, or only those of one model.",
        "One preprocessing for both, and undo it in predictions.",
        2,
    ),
    "rounded-data": Cause(
        "The training data are the same numbers after a passage through a coarser format, such as float32.",
        "Give the tensors their final dtype when they are made from arrays or files.",
        7,
    ),
    "row-order": Cause(
        "The training data are the same rows in another order. Sums are rounded in another order, no more than that.",
        "Sort the rows, or use float64.",
        7,
    ),
    "dtype": Cause(
        "The models compute in different formats, and the condition number multiplies the rounding.",
        "Use float64 for model and data.",
        7,
    ),
    "device": Cause("The models live on different devices.", "Compare on one device.", 9),
    "latent-against-observed": Cause(
        "The covariances differ by a multiple of the identity that equals the noise: one is of f, the other of y.",
        "Compare model(x) with model(x), or likelihood(model(x)) with likelihood(model(x)).",
        2,
    ),
}
CAUSES |= COMPUTED

# Of the chapters that measure causes, the names of the pages.
PAGES = {
    1: "01_same_covariance", 2: "02_hidden_state", 3: "03_where_training_starts", 4: "04_inducing_points",
    5: "05_minibatches", 6: "06_random_probes", 7: "07_rounding", 8: "08_conditioning", 9: "09_machines",
    11: "11_diagnose",
}  # fmt: skip

# Causes that make other differences, and so come first whatever their own size.
ROOTS = (
    "shared-with-data", "shared-within-model", "shared-parameters", "not-positive-definite", "length",
    "number-of-inputs", "noise-not-given", "skipped-transform", "collapsed-inputs",
)  # fmt: skip

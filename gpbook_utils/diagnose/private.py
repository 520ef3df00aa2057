"""What a diagnosis touches of torch and GPyTorch that these do not document, each name once and with its reason.

Everything else in this room uses these names through here. ``tests/test_private.py`` looks for each of them on an
object that should have it: at an upgrade that renames one, that test fails, and no diagnosis silently finds less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gpytorch
import torch
from gpytorch.constraints import Interval
from gpytorch.distributions import MultitaskMultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.variational._variational_distribution import _VariationalDistribution as VariationalDistribution
from gpytorch.variational._variational_strategy import _VariationalStrategy as VariationalStrategy
from torch import nn
from torch.nn.modules.dropout import _DropoutNd as Dropout

__all__ = ["Dropout", "VariationalDistribution", "VariationalStrategy"]


@dataclass(frozen=True)
class Private:
    """An attribute of a library's objects; called with one of them it gives the value.

    Attributes:
        name: as the library spells it.
        on: the class whose objects have it, or for a setting the class that has it.
        why: what it is needed for.

    >>> list(parameters(nn.Linear(1, 1)))
    ['weight', 'bias']
    """

    name: str
    on: type
    why: str

    def __call__(self, thing: Any, *default: Any) -> Any:
        """The attribute's value; ``default``, if given, where an object of another class has no such attribute."""
        return getattr(thing, self.name, *default)

    def held_by(self, thing: Any) -> bool:
        """Whether the object itself has the attribute, and not only its class."""
        return self.name in thing.__dict__


parameters = Private("_parameters", nn.Module, "also holds those that are None, and one is exchanged in it")
buffers = Private("_buffers", nn.Module, "also holds those that are None, and one is exchanged in it")
modules = Private("_modules", nn.Module, "also holds those that are None, and one is exchanged in it")
forward_hooks = Private("_forward_hooks", nn.Module, "code of the reader's that runs in a call")
forward_pre_hooks = Private("_forward_pre_hooks", nn.Module, "code of the reader's that runs in a call")
address = Private("_cdata", torch.UntypedStorage, "names the memory of empty and of overlapping tensors")

interleaved = Private("_interleaved", MultitaskMultivariateNormal, "whether tasks or points come first")
priors = Private("_priors", gpytorch.Module, "a prior with the function that says of what it is one")
constraints = Private("_constraints", gpytorch.Module, "a second list of what is in the modules, to be kept equal")
clear_cache = Private("_clear_cache", gpytorch.Module, "drops caches without a change of mode")
transform_of = Private("_transform", Interval, "two constraints of one class and range may transform differently")
train_targets = Private("_train_targets", gpytorch.models.ExactGP, "set without the checks of the public name")
jitter_value = Private("_jitter_val", VariationalStrategy, "tells a strategy with a jitter of its own")
mean_init_std = Private("mean_init_std", VariationalDistribution, "the scale of the random start of q(u), no state")
started = Private("variational_params_initialized", VariationalStrategy, "whether the next call draws q(u)")
random_weights = Private("randn_weights", gpytorch.kernels.RFFKernel, "are not there before the first call")

COMPILED = "_orig_mod"  # where torch.compile's wrapper holds the module
# Of a model of BoTorch, which may not be there: the training inputs before a transform, and whether it was applied.
ORIGINAL, TRANSFORMED = "_original_train_inputs", "_has_transformed_inputs"

prediction_strategy = Private("prediction_strategy", gpytorch.models.ExactGP, "the cache of an exact GP")
memoized = Private("_memoize_cache", VariationalStrategy, "the cache of a variational strategy and of some kernels")
CACHED = "_cached_"  # the names of an InducingPointKernel's and of some strategies' caches start with it
distance_module = Private("distance_module", Kernel, "made in a call, by the name of the class")
pdist_support = Private("_Kernel__pdist_supports_batch", Kernel, "a note of the last call")

flag_state = Private("_state", gpytorch.settings.fast_pred_var, "a switch of the settings; None by default")
flag_default = Private("_default", gpytorch.settings.fast_pred_var, "what None means")
VALUES = (
    Private("_global_value", gpytorch.settings.max_cholesky_size, "a number of the settings"),
    Private("_global_float_value", gpytorch.settings.cholesky_jitter, "the same, for float32"),
    Private("_global_double_value", gpytorch.settings.cholesky_jitter, "the same, for float64"),
    Private("_global_half_value", gpytorch.settings.cholesky_jitter, "the same, for float16"),
)
SETTINGS_BASES = ("_feature_flag", "_value_context", "_dtype_value_context")  # of settings, and no settings

# Attributes of any module that are no place of its own: registered parts, modes, and caches.
OF_EVERY_MODULE = {*gpytorch.Module().__dict__, prediction_strategy.name, memoized.name}


def constraint_of(module: nn.Module, name: str) -> Interval | None:
    """The constraint of a parameter; GPyTorch's own look-up raises for modules of torch."""
    return modules(module).get(constraint_name(name))


def constraint_name(name: str) -> str:
    """Under which name a module holds the constraint of a parameter."""
    return f"{name}_constraint"


def is_data(name: str) -> bool:
    """Whether an attribute of an exact GP holds its targets."""
    return name.startswith("_train_")

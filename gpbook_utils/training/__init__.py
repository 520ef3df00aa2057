"""Training by maximising a marginal likelihood, or its bound: one model, many starts, or minibatches.

This room may touch ``models``.
"""

from gpbook_utils.training.full_batch import fit, fit_in_turns
from gpbook_utils.training.minibatches import Minibatches, fit_alone, fit_minibatches, one_ulp
from gpbook_utils.training.restarts import Restarts, fit_restarts

__all__ = ["Minibatches", "Restarts", "fit", "fit_alone", "fit_in_turns", "fit_minibatches", "fit_restarts", "one_ulp"]

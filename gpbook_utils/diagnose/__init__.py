"""Why do two models differ, or one from itself? The cause is found by intervention on private copies.

:func:`explain_difference` exchanges one difference in state after the other between copies of two models;
:func:`check_model` calls copies of one model again with one circumstance changed. What then goes, or comes, is measured
on the ruler of :mod:`gpbook_utils.compare`. The models, generators and settings are left bitwise as they were.

Modules, from low to high: ``private`` (what torch and GPyTorch do not document), ``copying`` (copies that keep
faults), ``guard`` (global state), ``tree`` (modules and caches), ``asking`` (what a model is asked), ``readings`` and
``rounding`` (the quantities), ``causes`` (what is known of each), ``report`` and ``ruler``; ``inputs`` (checked
arguments). Of two models: ``sameness``, ``naming``, ``taking``, ``walk`` and ``state`` (their differences), ``memory``
and ``explain``. Of one: ``experiments`` (the loop), its table in ``circumstances``, ``contents``, ``scales``,
``numerics`` and ``raised``, and ``check``. ``remedies`` are lines of code. This room may touch ``compare`` only, so
that it works with torch and GPyTorch alone; ``pictures`` and ``suspects`` need what the book's chapters need.
"""

from gpbook_utils.diagnose.causes import CAUSES
from gpbook_utils.diagnose.check import check_model
from gpbook_utils.diagnose.explain import explain_difference
from gpbook_utils.diagnose.report import Finding, Quantity, Report

__all__ = ["CAUSES", "Finding", "Quantity", "Report", "check_model", "explain_difference"]

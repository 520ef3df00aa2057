"""Many runs of one function, on one machine or many, that survive being killed.

This room touches ``files`` only.
"""

from gpbook_utils.sweeps.runs import sweep

__all__ = ["sweep"]

"""Many runs of one function, on one machine or many, that survive being killed.

This room may touch ``files``, ``private``, ``reach`` and ``switches``.
"""

from gpbook_utils.sweeps.runs import sweep

__all__ = ["sweep"]

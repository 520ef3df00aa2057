"""Helpers of the book *Same Hyperparameters, Different Covariance*.

Import the module that you need, for example ``from gpbook_utils.claims import claim``. Each has one job, and imports
run one way: a module imports from the lines below its own, never from its own line::

    budget
    diagnose | explorer | inducing | machines | sweeps | training
    models | plots
    answers | claims | compare | costs | data | precision | reach
    arguments | conditions | files | private | switches

``budget``, ``diagnose``, ``machines``, ``sweeps`` and ``training`` are rooms with modules of their own; ``diagnose``
imports ``compare`` only. How the book itself is made lives in ``book/``, which nothing here imports.
"""

"""Helpers of the book *Same Hyperparameters, Different Covariance*.

Each module has one job, and imports run one way: ``answers``, ``claims``, ``compare``, ``data``, ``models``, ``files``,
``sources``, ``orphans``, ``batches`` and ``plots`` know nothing of the others, ``machine`` knows ``files``,
``restarts`` knows ``batches``, ``training`` knows ``models`` and ``restarts``, ``bits`` knows ``machine`` and
``models``, ``sweeps`` knows ``results`` and ``sources``, and ``notebooks``, ``handouts``, ``records`` and ``ledger``
stand on top. Import the module that you need, for example ``from gpbook_utils.claims import claim``.
"""

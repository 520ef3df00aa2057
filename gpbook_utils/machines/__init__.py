"""Machines: which one this is, what its bits are, and what other machines recorded.

This room may touch ``models``, ``data``, ``claims``, ``files`` and ``switches``.
"""

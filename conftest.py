"""Every session of pytest in this tree is watched: :mod:`book.strictness` says what it demands beyond passing tests."""

from book.strictness import Strictness


def pytest_configure(config):
    config.pluginmanager.register(Strictness(config), "gpbook-strictness")

"""Every session of pytest in this tree is watched: :mod:`book.strictness` says what it demands beyond passing tests."""

from book.strictness import Strictness

collect_ignore = ["book/lab/jupyter_server_config.py"]  # read by Jupyter, which gives it a name to set


def pytest_configure(config):
    config.pluginmanager.register(Strictness(config), "gpbook-strictness")

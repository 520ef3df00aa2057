"""The fingerprint, the probes, and running under a lower instruction set."""

import getpass
import json
import os
import platform
import socket
import sys

import pytest

from gpbook_utils.machines import machine


def test_the_fingerprint_names_no_one():
    text = json.dumps(machine.fingerprint())
    assert json.loads(text) == machine.fingerprint()
    for private in (
        socket.gethostname(),
        getpass.getuser() if os.getuid() else "/root",
        os.getcwd(),
        os.path.expanduser("~"),
    ):
        assert private not in text


def test_identity_follows_the_fingerprint():
    here = machine.fingerprint()
    assert machine.identity() == machine.identity(here)
    assert machine.identity(here | {"torch": "0"}) != machine.identity(here)
    assert machine.identity(here).replace("-", "").isalnum()


def test_a_probe_repeats():
    assert machine.probe_in({"OMP_NUM_THREADS": "1"}) == machine.probe_in({"OMP_NUM_THREADS": "1"})


def test_a_failing_probe_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the process failed"):
        machine.probe_in({})


x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86-64 has lower levels")


@x86
def test_lowering_reaches_the_command(capfd):
    show = "import json, torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    assert machine.main(["lowered", sys.executable, "-c", show]) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[-1] == "DEFAULT 1" and "changed: ATen" in out


@x86
def test_a_lowering_that_changes_nothing_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(machine, "LOWERED", {"OMP_NUM_THREADS": "1"})
    monkeypatch.setattr(machine, "COMPATIBLE", {})
    assert machine.main(["lowered", "true"]) == 1
    assert "the instruction set did not change" in capsys.readouterr().err


@x86
def test_the_blas_must_change_too(monkeypatch):
    answers = {"ATen": "AVX2", "float32 product": "a", "product": "b", "Cholesky": "c"}
    low = lambda environment: answers | ({"ATen": "DEFAULT"} if "ATEN_CPU_CAPABILITY" in environment else {})  # noqa: E731
    monkeypatch.setattr(machine, "probe_in", low)
    monkeypatch.setattr(machine, "_blas", lambda: "MKL 1")
    with pytest.raises(RuntimeError, match="changed: ATen$"):
        machine.lowered_environment()
    monkeypatch.setattr(machine, "_blas", lambda: "OPENBLAS")
    assert "MKL_CBWR" not in machine.lowered_environment()[0]


def test_the_command_s_status_is_returned(monkeypatch):
    monkeypatch.setattr(machine, "lowered_environment", lambda: ({}, "report"))
    assert machine.main(["lowered", sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert machine.main(["lowered", "no-such-command"]) == 1
    with pytest.raises(SystemExit):
        machine.main(["lowered"])


def test_a_command_runs_in_each_environment(monkeypatch, capfd):
    monkeypatch.setattr(machine, "environments", lambda: {"plain": {}, "one": {"OMP_NUM_THREADS": "1"}})
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    show = (
        "import os; print('sees', os.environ.get('OMP_NUM_THREADS')); raise SystemExit('OMP_NUM_THREADS' in os.environ)"
    )
    assert machine.main(["each", sys.executable, "-c", show]) == 1
    out = capfd.readouterr().out
    assert out.index("== plain: no switch is set") < out.index("sees None") < out.index("== one: OMP_NUM_THREADS=1")
    assert "sees 1" in out and out.endswith("plain: ok\none: exit status 1\n")
    assert machine.main(["each", "no-such-command"]) == 1


def test_the_environments_have_names(monkeypatch):
    monkeypatch.setattr(machine, "lowered_environment", lambda: ({"OMP_NUM_THREADS": "1"}, "report"))
    monkeypatch.setattr(machine, "_blas", lambda: "MKL 1")
    assert list(machine.environments()) == ["default", "one-thread", "lowered", "compatible"]
    assert machine.environments()["compatible"] == machine.COMPATIBLE
    monkeypatch.setattr(machine, "_blas", lambda: "OPENBLAS")
    assert "compatible" not in machine.environments()


def test_a_snippet_sees_no_switch_but_those_given(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    code = "import os; print('MKL_CBWR' in os.environ, os.environ['OMP_NUM_THREADS'])"
    assert machine.run_in({"OMP_NUM_THREADS": "1"}, code).split() == [b"False", b"1"]

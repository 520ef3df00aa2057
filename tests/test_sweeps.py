"""Sweeps: what is finished is done once, whatever is killed; what has changed is done again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import gpytorch
import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from gpbook_utils import reach
from gpbook_utils.sweeps import results, runs, sweep

DRIVER = Path(__file__).with_name("sweep_driver.py")
RUNS = 12  # of the driver
PATIENCE = 240  # seconds, on a busy machine
GENERATOR = torch.Generator()


def logging_run(log, action=lambda n, seed: {"value": n + seed}):
    """A function for sweeps that writes down each of its calls."""

    def run(n, seed):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{n} {seed}\n")
        return action(n, seed)

    return run


def calls(log):
    return Counter(Path(log).read_text().splitlines()) if Path(log).exists() else Counter()


def draws(n, seed):
    """Uses every generator, the thread count and the default dtype."""
    x = torch.randn(n, n)
    y = torch.tensor(np.random.standard_normal((n, n)))  # noqa: NPY002
    return {
        "x": x,
        "product": (x.double() @ y).sum(),
        "array": np.linalg.cholesky(np.eye(n) + 0.5),
        "chance": random.random(),
        "threads": torch.get_num_threads(),
        "dtype": str(x.dtype),
    }


def bits(table):
    """All that the runs returned, as one comparable thing."""

    def of(value):
        return (
            value.numpy().tobytes() if isinstance(value, torch.Tensor) else getattr(value, "tobytes", lambda: value)()
        )

    columns = [name for name in table.columns if name not in runs.COLUMNS]
    return [(name, of(value)) for name in columns for value in table[name]]


# What a caller gets


def test_a_tidy_table(tmp_path):
    table = sweep(draws, {"n": [2, 3]}, [5, 7], tmp_path)
    assert list(table.columns) == [
        "n", "seed", "x", "product", "array", "chance", "threads", "dtype", "seconds", "status", "error",
    ]  # fmt: skip
    assert list(zip(table.n, table.seed, strict=True)) == [(2, 5), (2, 7), (3, 5), (3, 7)]
    assert set(table.status) == {"finished"} and table.error.isna().all() and (table.seconds > 0).all()
    assert table.groupby("n")["product"].mean().notna().all()
    assert table["product"].dtype == np.float64 and table.threads.dtype == np.int64
    assert isinstance(table.x[0], torch.Tensor) and isinstance(table.array[0], np.ndarray)


def test_nothing_global_changes_and_each_run_is_seeded(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    table = sweep(draws, {"n": [4]}, range(3), tmp_path, threads=1)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert set(table.threads) == {1} and table.chance.nunique() == table["product"].nunique() == 3
    for seed in range(3):
        assert torch.equal(table.x[seed], torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)))
    backwards = sweep(draws, {"n": [4]}, [2, 1, 0], tmp_path / "again")
    assert bits(table) == bits(backwards[::-1])


def test_the_default_dtype_travels_and_counts(tmp_path):
    single = sweep(draws, {"n": [2]}, [0], tmp_path)
    try:
        torch.set_default_dtype(torch.float64)
        double = sweep(draws, {"n": [2]}, [0], tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (single.dtype[0], double.dtype[0]) == ("torch.float32", "torch.float64")


def cholesky_up_to(seed):
    return {"size": gpytorch.settings.max_cholesky_size.value(), "love": gpytorch.settings.fast_pred_var.on()}


def test_settings_of_gpytorch_travel_and_count(tmp_path):
    def found(**options):
        return sweep(cholesky_up_to, {}, [0], tmp_path, **options)[["size", "love"]].values.tolist()

    default = found()
    with gpytorch.settings.max_cholesky_size(10), gpytorch.settings.fast_pred_var():
        assert found() == [[10, True]]
    assert found() == default == [[800, False]]  # not the result of another setting
    with gpytorch.settings.max_cholesky_size(20), gpytorch.settings.fast_pred_var():
        assert found(workers=2) == [[20, True]]
    assert found(workers=2) == default


def test_a_run_that_changes_settings_leaves_them_as_they_were(tmp_path):
    def change(seed):
        before = gpytorch.settings.max_cholesky_size.value()
        gpytorch.settings.max_cholesky_size._set_value(seed)
        return {"before": before}

    assert list(sweep(change, {}, [1, 2], tmp_path).before) == [800, 800]
    assert gpytorch.settings.max_cholesky_size.value() == 800


def test_a_list_of_settings(tmp_path):
    table = sweep(lambda seed, a, b: {"value": a * b}, [{"a": 2, "b": 3}, {"b": 5, "a": 4}], [0], tmp_path)
    assert list(table.value) == [6, 20]


def test_what_a_run_changes_the_next_does_not_see(tmp_path):
    seen = []

    def grow(seed):
        seen.append(seed)
        return {"length": len(seen)}

    assert list(sweep(grow, {}, range(3), tmp_path).length) == [1, 1, 1]


# Finished means done


def test_what_is_on_disk_is_served(tmp_path):
    run = logging_run(tmp_path / "log")
    first = sweep(run, {"n": [1, 2]}, range(2), tmp_path / "sweep")
    second = sweep(run, {"n": [1, 2, 3]}, range(2), tmp_path / "sweep")
    assert set(calls(tmp_path / "log").values()) == {1} and len(second) == 6
    pd.testing.assert_frame_equal(first, second[:4])


def test_ctrl_c_loses_nothing(tmp_path):
    def stop(n, seed):
        if seed == 2 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        return {}

    run = logging_run(tmp_path / "log", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        sweep(run, {"n": [1]}, range(4), tmp_path / "sweep")
    assert "2 of 4 runs are on disk" in caught.value.__notes__[0]
    assert not list((tmp_path / "sweep").glob(".*"))
    assert set(sweep(run, {"n": [1]}, range(4), tmp_path / "sweep").status) == {"finished"}
    assert calls(tmp_path / "log") == {"1 0": 1, "1 1": 1, "1 2": 2, "1 3": 1}


def test_a_failed_run_is_recorded_and_the_others_finish(tmp_path):
    def fail(n, seed):
        if n == 2:
            raise ArithmeticError("two is too much")
        return {"value": n}

    run = logging_run(tmp_path / "log", fail)
    table = sweep(run, {"n": [1, 2, 3]}, [0], tmp_path / "sweep")
    assert list(table.status) == ["finished", "failed", "finished"]
    assert table.error[1] == "ArithmeticError: two is too much" and np.isnan(table.value[1])
    (record,) = [r for p in (tmp_path / "sweep").iterdir() if (r := results.read(p))["status"] == "failed"]
    assert "two is too much" in record["traceback"] and "in fail" in record["traceback"]
    sweep(run, {"n": [1, 2, 3]}, [0], tmp_path / "sweep")
    assert set(calls(tmp_path / "log").values()) == {1}
    sweep(run, {"n": [1, 2, 3]}, [0], tmp_path / "sweep", retry=True)
    assert calls(tmp_path / "log") == {"1 0": 1, "2 0": 2, "3 0": 1}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("3", "what a run returns must be a dictionary of named things; got 3"),
        ("{1: 2}", "must be a dictionary of named things; got {1: 2}"),
        ("{'model': torch.nn.Linear(1, 1)}", "'model' is Linear"),
        ("{'a': [1, 2]}", "'a' is list"),
        ("{'a': np.array(['x'])}", "'a' is ndarray"),
        ("{'a': torch.eye(2).to_sparse()}", "'a' is Tensor"),
        ("{'status': 1, 'n': 2}", "must not return n, status"),
    ],
)
def test_what_a_run_may_not_return(tmp_path, returned, message):
    # As text, since a function may not read a model, but may make one.
    table = sweep(lambda n, seed: eval(returned, {"np": np, "torch": torch}), {"n": [1]}, [0], tmp_path)
    assert table.status[0] == "failed" and message in table.error[0]


# What has changed is done again


def test_another_function_is_done_again(tmp_path):
    log = tmp_path / "log"
    for action in (lambda n, seed: {"v": n}, lambda n, seed: {"v": n + 1}, lambda n, seed: {"v": n}):
        assert sweep(logging_run(log, action), {"n": [1]}, [0], tmp_path / "sweep").v[0] in (1, 2)
    assert calls(log) == {"1 0": 2}


@pytest.mark.parametrize("name", ["python", "torch", "gpytorch", "linear_operator", "numpy", "scipy"])
def test_another_version_is_done_again(tmp_path, monkeypatch, name):
    run = logging_run(tmp_path / "log")
    sweep(run, {"n": [1]}, [0], tmp_path / "sweep")
    other = runs.environment() | {name: "another"}
    monkeypatch.setattr(runs, "environment", lambda: other)
    sweep(run, {"n": [1]}, [0], tmp_path / "sweep")
    assert calls(tmp_path / "log") == {"1 0": 2}


def branch(seed):
    return {"branch": os.environ.get("MKL_CBWR", "none"), "process": os.getpid()}


def test_a_variable_that_chooses_the_code_counts(tmp_path, monkeypatch):
    found = {}
    for value in (None, "COMPATIBLE", None):
        if value is None:
            monkeypatch.delenv("MKL_CBWR", raising=False)
        else:
            monkeypatch.setenv("MKL_CBWR", value)
        monkeypatch.setenv("OF_NO_MATTER", str(value))
        found.setdefault(value, []).append(sweep(branch, {}, [0], tmp_path).branch[0])
    assert found == {None: ["none", "none"], "COMPATIBLE": ["COMPATIBLE"]}
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_workers_that_began_under_another_variable_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    (pid,) = sweep(branch, {}, [0], tmp_path, workers=2).process
    assert pid != os.getpid()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    message = r"worker process \d+ on .* would .*\(MKL_CBWR: not set instead of COMPATIBLE\).*start the workers anew"
    with pytest.raises(RuntimeError, match=message):
        sweep(branch, {}, [0], tmp_path, workers=2)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


@pytest.mark.parametrize("change", [{"grid": {"n": [1.0]}}, {"grid": {"n": [True]}}, {"seeds": [1]}, {"threads": 2}])
def test_other_settings_are_done_again(tmp_path, change):
    run = logging_run(tmp_path / "log")
    usual = {"grid": {"n": [1]}, "seeds": [0]}
    for arguments in (usual, usual | change, usual):
        sweep(run, folder=tmp_path / "sweep", **arguments)
    assert calls(tmp_path / "log").total() == 2


def test_versions_of_a_worker_are_checked(tmp_path, monkeypatch):
    job = runs._Job.make(logging_run(tmp_path / "log"), tmp_path, 1, False)
    other = runs.environment() | {"torch": "0.1"}
    monkeypatch.setattr(runs, "environment", lambda: other)
    with job.announced(), pytest.raises(RuntimeError, match=r"this process would .*torch: 0\.1 instead of 2"):
        runs._execute(job, runs._Run("key", {"n": 1}, 0))
    elsewhere = replace(job, caller=("another", 1))
    with elsewhere.announced(), pytest.raises(RuntimeError, match=rf"worker process {os.getpid()} on .*torch: 0\.1"):
        runs._execute(elsewhere, runs._Run("key", {"n": 1}, 0))
    assert not (tmp_path / "log").exists()


def test_the_folder_of_a_worker_is_checked(tmp_path):
    job = runs._Job.make(logging_run(tmp_path / "log"), tmp_path, 1, False)
    with pytest.raises(RuntimeError, match="does not see"):
        runs._execute(job, runs._Run("key", {"n": 1}, 0))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"value": 1', '"value": 2'),
        lambda text: text.splitlines()[0],
        lambda text: "[]\n" + text.splitlines()[1],
    ],
)
def test_a_damaged_file_is_noticed_and_its_run_done_again(tmp_path, damage):
    run = logging_run(tmp_path / "log")
    first = sweep(run, {"n": [1]}, [0], tmp_path / "sweep")
    (path,) = (tmp_path / "sweep").iterdir()
    path.write_text(damage(path.read_text()))
    with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged .* its run is done again"):
        second = sweep(run, {"n": [1]}, [0], tmp_path / "sweep")
    assert calls(tmp_path / "log") == {"1 0": 2} and bits(first) == bits(second)
    assert calls(tmp_path / "log") == {"1 0": 2} and len(sweep(run, {"n": [1]}, [0], tmp_path / "sweep")) == 1


def test_a_renamed_file_is_noticed(tmp_path):
    sweep(logging_run(tmp_path / "log"), {"n": [1]}, [0], tmp_path / "sweep")
    (path,) = (tmp_path / "sweep").iterdir()
    path.rename(path.with_name("0" * 32 + ".jsonl"))
    with pytest.raises(ValueError, match="is damaged .it holds the result"):
        results.read(path.with_name("0" * 32 + ".jsonl"))


def test_a_result_is_on_disk_before_the_next_run_starts(tmp_path):
    def look(n, seed):
        return {"files": len(list((tmp_path / "sweep").glob("*.jsonl")))}

    assert list(sweep(look, {"n": [1]}, range(3), tmp_path / "sweep").files) == [0, 1, 2]


def test_old_litter_is_cleared_and_young_is_left(tmp_path):
    for name, age in ((".old.part", 2 * runs.LITTER), (".young.part", 0), ("old.part", 2 * runs.LITTER)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    sweep(lambda seed: {}, {}, [0], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".part") == [".young.part", "old.part"]


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        -0.0,
        float("inf"),
        10**40,
        True,
        None,
        "ü\u2028\n",
        np.float32(0.1),
        np.int8(3),
        np.bool_(True),
        1 + 2j * np.ones(2),
        np.zeros((0, 3)),
        np.arange(6, dtype=">i4").reshape(2, 3).T,
        torch.tensor(0.1),
        torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).T,
        torch.zeros(0, 2),
        torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
    ],
    ids=str,
)
def test_values_come_back_in_every_bit(value):
    back = results.decode(json.loads(json.dumps(results.encode({"value": value}))))["value"]
    if isinstance(value, torch.Tensor) and value.dim():
        assert back.dtype == value.dtype and back.shape == value.shape
        assert results.tensor_bytes(back) == results.tensor_bytes(value)
    elif isinstance(value, np.ndarray):
        assert back.dtype == value.dtype and np.array_equal(back, value)
    else:
        assert back == value and str(back).startswith("-") == str(value).startswith("-")


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": 3}, "function must be a function of n, seed; got 3"),
        ({"function": lambda n: {}}, "function must be a function of n, seed; it is <lambda>"),
        ({"grid": {"m": [1]}}, "function must be a function of m, seed"),
        ({"grid": [1]}, "grid must be a dictionary of lists, or a list of dictionaries; got \\[1\\]"),
        ({"grid": []}, "grid must be a dictionary"),
        ({"grid": {"n": []}}, r"grid\['n'\] must have at least one value"),
        ({"grid": {"n": "abc"}}, r"grid\['n'\] must be a list; got 'abc'"),
        ({"grid": {"n": 3}}, r"grid\['n'\] must be a list; got 3"),
        ({"grid": {"n": [1, 1]}}, "grid names settings twice: {'n': 1}"),
        ({"grid": [{"n": 1}, {"m": 1}]}, "the same names"),
        ({"grid": {"n": [torch.optim.Adam]}}, "setting 'n' must be a number, .* pass a name"),
        ({"grid": {"n": [float("nan")]}}, "setting 'n' must be a number"),
        ({"grid": {"seed": [1]}}, "other than seed"),
        ({"grid": {"error": [1]}}, "other than seed, seconds, status, error; got 'error'"),
        ({"seeds": 3}, "seeds must be a list; got 3"),
        ({"seeds": []}, "seeds must be 1 whole numbers"),
        ({"seeds": [0.5]}, r"seeds\[0\] must be a whole number, from 0 to 4294967295"),
        ({"seeds": [-1]}, r"seeds\[0\] must be a whole number, from 0 to 4294967295"),
        ({"seeds": [True]}, r"seeds\[0\] must be a whole number, from 0 to 4294967295"),
        ({"seeds": [2**32]}, r"seeds\[0\] must be a whole number, from 0 to 4294967295"),
        ({"seeds": [1, 2, 1]}, "seeds must be distinct; 1 stands there twice"),
        ({"workers": 0}, "workers must be a whole number, at least 1; got 0"),
        ({"workers": 1.5}, "workers must be a whole number"),
        ({"threads": True}, "threads must be a whole number"),
        ({"folder": 3}, "folder must be a path; got 3"),
        ({"folder": __file__}, "can't be made: File exists"),
        ({"function": lambda n, seed, generator=GENERATOR: {}}, "reads a default of .*, a torch._C.Generator"),
    ],
)
def test_bad_input(tmp_path, change, message):
    arguments = {"function": lambda n, seed: {}, "grid": {"n": [1]}, "seeds": [0], "folder": tmp_path} | change
    with pytest.raises(ValueError, match=message):
        sweep(**arguments)


def test_a_backend_of_threads_is_refused(tmp_path):
    with joblib.parallel_config(backend="threading", n_jobs=2), pytest.raises(ValueError, match="got ThreadingBackend"):
        sweep(lambda seed: {}, {}, [0], tmp_path)


# Processes, for real


def test_equal_bits_wherever_it_runs(tmp_path):
    from dask.distributed import Client, LocalCluster

    where = {"serial": tmp_path / "1", "loky": tmp_path / "2", "dask": tmp_path / "3"}
    grid, seeds = {"n": [2, 60]}, range(3)
    serial = sweep(draws, grid, seeds, where["serial"])
    loky = sweep(draws, grid, seeds, where["loky"], workers=2)
    with joblib.parallel_config("loky", n_jobs=2):
        assert bits(sweep(draws, grid, seeds, tmp_path / "4")) == bits(loky)
    # Two threads a worker: a process still does one run at a time, since they share the generators.
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        dask = sweep(draws, grid, seeds, where["dask"])
    assert bits(serial) == bits(loky)
    # While it starts, a Dask worker draws from Python's generator too (distributed.worker.benchmark_memory).
    assert bits(serial.drop(columns="chance")) == bits(dask.drop(columns="chance"))
    names = [sorted(path.name for path in folder.iterdir()) for folder in where.values()]
    assert names[0] == names[1] == names[2] and len(names[0]) == 6


class Driver:
    """``sweep_driver.py`` as a process whose descendants can be found, even when it is gone."""

    def __init__(self, mode, folder, *options):
        self.folder, self.log, self.mark = folder / "sweep", folder / "log", uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, DRIVER, mode, self.folder, self.log, *options],
            env=os.environ | {"GPBOOK_TEST_MARK": self.mark},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_for(self, condition, what):
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            if self.process.poll() not in (None, -signal.SIGKILL) or time.monotonic() > end:
                self.process.kill()
                pytest.fail(f"waited in vain for {what}: {self.process.communicate()}")
            time.sleep(0.005)
        return found

    def lines(self, event):
        text = self.log.read_text() if self.log.exists() else ""
        return [line.split()[1:] for line in text.splitlines() if line.startswith(event)]

    def begun(self):
        return Counter((n, seed) for n, seed, _ in self.lines("begin"))

    def on_disk(self):
        found = [results.read(path) for path in self.folder.glob("*.jsonl")]
        return {(str(one["settings"]["n"]), str(one["seed"])) for one in found}

    def at_work(self):
        """A living process whose run has begun and not ended."""
        ended = {tuple(line) for line in self.lines("end")}
        at_work = [int(line[2]) for line in self.lines("begin") if tuple(line) not in ended]
        return next((process for process in reversed(at_work) if process in self.processes()), None)

    def processes(self):
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("GPBOOK_TEST_MARK") == self.mark and process.status() != "zombie":
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def kill(self):
        """Kill the driver, wait until its last process is gone, and return the runs that are on disk then."""
        self.process.kill()
        self.process.communicate()
        self.wait_for(lambda: not self.processes(), "the end of the orphans")
        return self.on_disk()

    def output(self):
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, err
        return out, err


def kill_driver(tmp_path, mode, moment):
    """Kill the driver once ``moment`` runs have ended, start it again, and return how it went."""
    for attempt in range(3):  # a loaded machine may see the moment late, when all has ended
        folder = tmp_path / str(attempt)
        folder.mkdir()
        first = Driver(mode, folder)
        first.wait_for(lambda d=first: len(d.lines("end")) >= moment and (moment or d.at_work()), f"{moment} runs")
        finished = first.kill()
        if len(finished) < RUNS:
            break
    assert len(finished) < RUNS
    second = Driver(mode, folder)
    out, err = second.output()
    assert len(second.on_disk()) == RUNS and err == ""
    repeated = [run for run in finished if second.begun()[run] > 1]
    assert repeated == [], "finished runs were done again"
    assert second.begun().total() <= RUNS + 2  # the two that were at work
    assert second.processes() == []
    return out


def kill_worker(tmp_path, mode, moments):
    """Kill a worker at work at each moment; the same driver goes on."""
    driver = Driver(mode, tmp_path)
    finished = {}
    for moment in moments:
        victim = driver.wait_for(lambda m=moment: len(driver.lines("end")) >= m and driver.at_work(), f"{moment} runs")
        on_disk, begun = driver.on_disk(), driver.begun()
        finished |= {run: begun[run] for run in on_disk}
        os.kill(victim, signal.SIGKILL)
    out, err = driver.output()
    assert len(driver.on_disk()) == RUNS
    assert mode == "dask" or "a worker process died" in err
    repeated = [run for run, count in finished.items() if driver.begun()[run] > count]
    assert repeated == [], "finished runs were done again"
    driver.wait_for(lambda: not driver.processes(), "the end of the workers")
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the driver prints when nobody kills it."""
    return Driver("1", tmp_path_factory.mktemp("undisturbed")).output()[0]


def test_a_killed_driver_and_its_workers(tmp_path, undisturbed):
    assert kill_driver(tmp_path, "2", 4) == undisturbed


@pytest.mark.deep
@pytest.mark.parametrize("moment", [0, 1, 9])
@pytest.mark.parametrize("mode", ["1", "2", "dask"])
def test_a_killed_driver_at_other_moments(tmp_path, undisturbed, mode, moment):
    assert kill_driver(tmp_path, mode, moment) == undisturbed


@pytest.mark.deep
@pytest.mark.parametrize("moments", [[0], [5], [2, 8]], ids=str)
@pytest.mark.parametrize("mode", ["2", "dask"])
def test_a_killed_worker(tmp_path, undisturbed, mode, moments):
    assert kill_worker(tmp_path, mode, moments) == undisturbed


@pytest.mark.deep
def test_a_driver_killed_before_its_workers_begin(tmp_path):
    driver = Driver("2", tmp_path)
    driver.wait_for(lambda: len(driver.processes()) >= 3, "processes of loky")
    assert driver.kill() == set()


@pytest.mark.deep
def test_two_drivers_share_a_folder(tmp_path, undisturbed):
    drivers = [Driver("1", tmp_path) for _ in range(2)]
    assert [driver.output() for driver in drivers] == [(undisturbed, "")] * 2
    assert len(drivers[0].on_disk()) == RUNS
    assert not list(drivers[0].folder.glob(".*"))


@pytest.mark.deep
@pytest.mark.parametrize("mode", ["2", "dask"])
def test_a_run_that_kills_its_worker_fails_alone(tmp_path, mode):
    driver = Driver(mode, tmp_path, "deadly")
    table = json.loads(driver.output()[0])
    failed = {(n, seed): error for n, seed, status, error in table if status == "failed"}
    assert set(failed) == {(30, 1), (30, 4)} and len(table) == RUNS
    assert all(error.startswith("its worker process died 3 times") for error in failed.values())
    begun = driver.begun()
    assert [begun["30", seed] for seed in "14"] == [runs.DEATHS] * 2
    driver.wait_for(lambda: not driver.processes(), "the end of the workers")


@pytest.mark.deep
def test_a_changed_package_is_done_again(tmp_path):
    """For real: a copy of the package, in which modules are edited between two runs of one script."""
    import shutil

    shutil.copytree(reach.ROOT / "gpbook_utils", tmp_path / "gpbook_utils")
    script = (
        "from gpbook_utils.models import bitwise_equal\nfrom gpbook_utils.sweeps import sweep\n"
        "def run(seed):\n    print('begun')\n    return {'same': bool(bitwise_equal)}\n"
        f"sweep(run, [{{}}], [0], {str(tmp_path / 'sweep')!r})"
    )
    for module, edit, begun in (
        ("models", "", 1), ("models", "", 0), ("models", "# edited", 0), ("plots", "edited = 1", 0),
        ("models", "edited = 1", 1),
    ):  # fmt: skip
        with open(tmp_path / "gpbook_utils" / f"{module}.py", "a") as file:
            file.write(f"\n{edit}\n")
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("begun") == begun, (module, edit)


def area(width, seed):
    return {"area": width * 2.0}


def test_a_result_of_the_first_edition_is_refused_with_the_reason_and_kept(tmp_path):
    """The file was written by the first edition, for this very function."""
    (old,) = Path(__file__).with_name("first_edition").glob("*.jsonl")
    kept = tmp_path / old.name
    kept.write_bytes(old.read_bytes().replace(b"2.0", b"2.5"))  # not whole any more: no result of any edition
    sweep(area, {"width": [1]}, [1], tmp_path)
    kept.write_bytes(old.read_bytes())
    sweep(area, {"width": [2]}, [0], tmp_path)
    with pytest.warns(RuntimeWarning, match="1 results in .* are of an older edition of sweeps.*done again") as caught:
        table = sweep(area, {"width": [1, 2]}, [0, 1], tmp_path)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert list(table.area) == [2.0, 2.0, 4.0, 4.0] and len(list(tmp_path.glob("*.jsonl"))) == 5
    assert kept.read_bytes() == old.read_bytes()
    sweep(area, {"width": [1, 2]}, [0, 1], tmp_path)  # nothing is missing, so nothing is said


def test_results_of_another_edition_are_not_served(tmp_path, monkeypatch):
    sweep(area, {"width": [1]}, [0], tmp_path)
    monkeypatch.setattr(runs, "EDITION", runs.EDITION + 1)
    with pytest.warns(RuntimeWarning, match="1 results"):
        sweep(area, {"width": [1]}, [0], tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2

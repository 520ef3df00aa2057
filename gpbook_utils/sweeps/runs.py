"""Many independent runs of one function, on this machine or on a cluster, that survive a kill.

Each finished run is a file at once. So a sweep that was killed goes on where it was when the same call is made again,
and a call whose runs are all on disk only reads them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import platform
import random
import threading
import time
import traceback
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import joblib
import numpy as np
import torch
from joblib.externals.loky import BrokenProcessPool
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from gpbook_utils import arguments, private
from gpbook_utils.conditions import computing
from gpbook_utils.sweeps import results
from gpbook_utils.sweeps.orphans import end_with
from gpbook_utils.sweeps.sources import source_hash
from gpbook_utils.switches import branches

if TYPE_CHECKING:
    from pandas import DataFrame

FINISHED, FAILED = "finished", "failed"
COLUMNS = ("seconds", "status", "error")  # after those of the settings, the seed and the values
MANY = 1024  # threads
DEATHS = 3  # of its worker, after which a run is not tried again
LITTER = 30 * 24 * 3600  # seconds after which a hidden file belongs to no living process

EDITION = 2  # raise it when runs start in another way (also in conditions.py), or results are kept in another form
_alone = threading.Lock()  # random generators, thread counts and the default dtype belong to a whole process


def sweep(
    function: Callable[..., dict],
    grid: dict[str, Iterable] | list[dict],
    seeds: Iterable[int],
    folder: str | Path,
    *,
    workers: int = 1,
    threads: int = 1,
    retry: bool = False,
    progress: bool | None = None,
) -> DataFrame:
    """Call ``function(**settings, seed=seed)`` for all settings of a grid and all seeds, and keep each result on disk.

    A result is served from disk if nothing that decides it has changed: the function's code and what it reads, also
    of this package (:func:`gpbook_utils.sweeps.sources.source_hash`), settings, seed, threads, torch's default dtype,
    ``gpytorch.settings``, and what :func:`environment` says: versions, and the environment variables that choose which
    code computes. The machine is not among them, nor are other environment variables. A run that raises is recorded
    with its error while others go on. A damaged file, or a result of an older edition of sweeps, is reported and its
    run done again.

    Each run starts with the global random generators of torch, NumPy and Python seeded with ``seed``, with gradients
    enabled, with the ``gpytorch.settings`` of this call, and with its own copy of what the function reads, so that it
    does the same wherever it runs. One exception: a Dask worker draws from Python's ``random`` itself as it starts, so
    that there a run had better make a ``random.Random(seed)`` of its own. Other global settings belong into the
    function.

    With ``workers`` the runs are tasks of joblib in that many processes; they end with this process, also if it is
    killed. A run whose process dies is done again, three times at most. Within
    ``joblib.parallel_config(backend="dask")`` the same call runs on a Dask cluster whose workers see ``folder``; give
    them one thread each, since a process does one run at a time.

    Args:
        function: takes the settings and ``seed`` by name; returns a dictionary of numbers, texts, truth values,
            ``None``, arrays and tensors. It may be defined in a notebook. What it reads travels with each run, so large
            data is better loaded within.
        grid: for each setting its values, of which all combinations run; or the settings of each run, as a list.
            Values are numbers, texts, truth values or ``None``.
        seeds: distinct whole numbers from 0 to 2^32 - 1.
        folder: where the results are, one file a run. Several sweeps, also at the same time, may share it.
        workers: number of processes on this machine; with 1, the runs are done in this one.
        threads: of each run; results may depend on it.
        retry: do failed runs again, instead of reporting them from disk.
        progress: whether to show a bar with the time left; by default only on a terminal.

    Returns:
        One row a run, in the order of the grid and the seeds, with a column for each setting, ``seed``, a column for
        each returned value, ``seconds``, ``status`` (*finished* or *failed*) and ``error``. The file of a failed run
        holds its traceback.

    Raises:
        ValueError: for settings, seeds or a function of another form, or one that reads something without a hash.
        RuntimeError: if a worker does not see the folder, or would compute with other versions or variables; or if
            workers die before they start a run. What has finished is on disk.

    >>> import tempfile
    >>> def area(width, seed):
    ...     return {"area": width * 2.0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = sweep(area, {"width": [1, 2]}, range(2), folder)
    >>> table[["width", "seed", "area", "status"]]
       width  seed  area    status
    0      1     0   2.0  finished
    1      1     1   2.0  finished
    2      2     0   4.0  finished
    3      2     1   4.0  finished
    """
    settings, seeds = _settings(grid), _seeds(seeds)
    arguments.whole("workers", workers)
    arguments.whole("threads", threads, most=MANY)
    arguments.flag("retry", retry)
    arguments.optional(arguments.flag, "progress", progress)
    arguments.function("function", function, **settings[0], seed=0)
    job = _Job.make(function, folder, threads, retry)
    runs = [_Run(job.key(chosen, seed), chosen, seed) for chosen, seed in itertools.product(settings, seeds)]
    with job.announced():
        found = {run.key: record for run in runs if (record := job.stored(run)) is not None}
        missing = [run for run in runs if run.key not in found]
        job.report_older(missing)
        hidden = None if progress is None else not progress
        with tqdm(total=len(runs), initial=len(found), unit="run", disable=hidden) as bar:
            try:
                for record in _records(job, missing, workers):
                    found[record["key"]] = record
                    bar.update()
            except BaseException as error:
                error.add_note(f"{len(found)} of {len(runs)} runs are on disk in {job.folder}; the same call goes on")
                raise
    return _table(runs, found)


def environment() -> dict[str, str]:
    """What a result depends on beside the function and what it reads: versions, and variables that choose the code.

    >>> list(environment())[:6]
    ['python', 'torch', 'gpytorch', 'linear_operator', 'numpy', 'scipy']
    """
    return _versions() | branches()


@cache
def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("gpytorch", "linear_operator", "numpy", "scipy")}
    # Of torch not what the metadata say, which do not tell builds apart.
    return {"python": platform.python_version(), "torch": torch.__version__, **libraries}


@dataclass(frozen=True)
class _Run:
    key: str
    settings: dict
    seed: int


@dataclass(frozen=True)
class _Job:
    """What all runs of one call share, and what travels to the workers."""

    function: bytes  # by cloudpickle
    name: str
    source: str
    environment: dict
    folder: Path
    call: str
    threads: int
    dtype: torch.dtype
    settings: dict  # of GPyTorch
    retry: bool
    caller: tuple  # its machine and process

    @classmethod
    def make(cls, function, folder, threads, retry) -> _Job:
        source = source_hash(function)
        try:
            content = cloudpickle.dumps(function)
        except Exception as error:  # cloudpickle raises many kinds
            raise ValueError(f"function cannot be sent to another process: {error}") from error
        folder = Path(arguments.instance("folder", folder, (str, os.PathLike), "a path")).expanduser().resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"folder {str(folder)!r} can't be made: {error.strerror}") from error
        name = getattr(function, "__name__", type(function).__name__)
        dtype, call = torch.get_default_dtype(), uuid.uuid4().hex[:12]
        return cls(
            content, name, source, environment(), folder, call, threads, dtype, private.settings(), retry, _here()
        )

    def key(self, settings: dict, seed: int) -> str:
        of_gpytorch = {".".join(name): repr(value) for name, value in self.settings.items()}
        decisive = [EDITION, self.source, self.environment, settings, seed, self.threads, str(self.dtype), of_gpytorch]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]

    def path(self, run: _Run) -> Path:
        return self.folder / f"{run.key}{results.SUFFIX}"

    def marker(self, run: _Run) -> Path:
        """A file with one byte for each start of a run that has not ended."""
        return self.folder / f".{run.key}.{self.call}.started"

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Let workers see that their folder is this one; and clear away what killed processes left long ago."""
        for old in self.folder.glob(".*"):
            with suppress(OSError):
                if old.suffix in (".part", ".started", ".call") and old.stat().st_mtime < time.time() - LITTER:
                    old.unlink()
        self.announcement.touch()
        try:
            yield
        finally:
            for own in [self.announcement, *self.folder.glob(f".*.{self.call}.started")]:
                own.unlink(missing_ok=True)

    @property
    def announcement(self) -> Path:
        return self.folder / f".{self.call}.call"

    def stored(self, run: _Run) -> dict | None:
        """The result on disk, if it is to be served."""
        try:
            record = results.read(self.path(run))
        except ValueError as error:
            warnings.warn(f"{error}; its run is done again", RuntimeWarning, stacklevel=4)
            return None
        if record and record["status"] == FAILED and self.retry and record["call"] != self.call:
            return None
        return record

    def report_older(self, missing: list[_Run]) -> None:
        """Say why results of an older edition, which lie in the folder for missing runs, are not served."""
        runs = {(json.dumps(run.settings, sort_keys=True), run.seed) for run in missing}
        older = 0
        for path in self.folder.glob(f"*{results.SUFFIX}") if runs else ():
            with suppress(ValueError, OSError), open(path, "rb") as file:
                if f'"edition": {EDITION},'.encode() not in file.read(100) and (record := results.read(path)):
                    asked = (json.dumps(record["settings"], sort_keys=True), record["seed"]) in runs
                    older += record["function"] == self.name and asked
        if older:
            message = (
                f"{older} results in {self.folder} are of an older edition of sweeps, and what they depended on can't "
                "be compared with today's code; they stay where they are, and their runs are done again"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def check_worker(self) -> None:
        """Refuse to compute here what would be filed under another version."""
        here = {**environment(), _WHAT: _hash_of(self.function)}
        there = {**self.environment, _WHAT: self.source}
        if differing := [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]:
            lines = ", ".join(
                f"{name}: {here.get(name, 'not set')[:16]} instead of {there.get(name, 'not set')[:16]}"
                for name in differing
            )
            if _here() == self.caller:
                raise RuntimeError(
                    f"this process would compute with something else than what the sweep is filed under ({lines}): "
                    "a module was edited or reloaded since it was imported. Restart this process"
                )
            raise RuntimeError(
                "worker process {1} on {0} would compute with something else than the process that called sweep "
                "({2}). Install the same versions and set the same variables there, and start the workers anew; if a "
                "module was edited since it was imported, restart both".format(*_here(), lines)
            )
        if not self.announcement.exists():
            raise RuntimeError(
                f"a worker on {platform.node()} does not see {self.folder} as this process does; "
                "give a folder that all machines share, or the sweep that began this run has ended"
            )


_WHAT = "the function and what it reads"


def _here() -> tuple[str, int]:
    return platform.node(), os.getpid()


def _execute(job: _Job, run: _Run) -> dict:
    """In a worker: do one run and store it, unless it is stored already; returns what is stored."""
    with _alone:
        job.check_worker()
        if (record := job.stored(run)) is not None:  # by another driver, or before its first worker died
            return record
        marker = job.marker(run)
        with open(marker, "ab") as file:
            file.write(b".")
            file.flush()
            starts = os.fstat(file.fileno()).st_size
        try:
            outcome = _dead(starts - 1) if starts > DEATHS else _outcome(job, run)
            record = {"key": run.key, "edition": EDITION}  # first: report_older reads the beginning of a file
            record |= {"function": job.name, "settings": run.settings, "seed": run.seed}
            record |= {**outcome, "threads": job.threads, "dtype": str(job.dtype), "call": job.call}
            results.write(job.path(run), record | {"source": job.source, "environment": job.environment})
        finally:
            marker.unlink(missing_ok=True)
        return record


def _outcome(job: _Job, run: _Run) -> dict:
    start = time.perf_counter()
    values, message, where = {}, None, None
    try:
        with _conditions(run.seed, job.threads, job.dtype), private.under(job.settings):
            function = cloudpickle.loads(job.function)  # a copy of its own: no run sees what another changed
            start = time.perf_counter()
            returned = function(**run.settings, seed=run.seed)
            seconds = time.perf_counter() - start
        values = results.encode(returned)
        if taken := {*run.settings, "seed", *COLUMNS} & values.keys():
            raise ValueError(f"a run must not return {', '.join(sorted(taken))}, which the table says of each run")
    except (Exception, SystemExit) as error:  # Ctrl-C is no failure of the run
        seconds = time.perf_counter() - start
        values, message = {}, f"{type(error).__name__}: {error}"
        where = "".join(traceback.format_exception(error))
    status = FINISHED if message is None else FAILED
    return {"status": status, "values": values, "error": message, "traceback": where, "seconds": seconds}


def _dead(deaths: int) -> dict:
    message = (
        f"its worker process died {deaths} times: killed, for want of memory perhaps, or by a fault in compiled code"
    )
    return {"status": FAILED, "values": {}, "error": message, "traceback": None, "seconds": math.nan}


@contextmanager
def _conditions(seed: int, threads: int, dtype: torch.dtype) -> Iterator[None]:
    """What each run finds, wherever it runs; afterwards all is as it was."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    forked = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    with forked, torch.enable_grad(), threadpool_limits(threads), computing(threads, dtype):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


@cache
def _hash_of(function: bytes) -> str:
    return source_hash(cloudpickle.loads(function))


# Where the runs are done -----------------------------------------------------------------------------


def _records(job: _Job, runs: list[_Run], workers: int) -> Iterator[dict]:
    """The results of runs that are not on disk, as they come."""
    if not runs:
        return
    backend, n_jobs = joblib.parallel.get_active_backend()
    kind = type(backend).__name__
    if kind == "DaskDistributedBackend":
        yield from _on_dask(backend.client, job, runs)
        return
    workers = workers if workers > 1 or n_jobs is None else joblib.effective_n_jobs(n_jobs)
    if workers == 1 or kind == "SequentialBackend":
        for run in runs:
            yield _execute(job, run)
    elif kind == "LokyBackend":
        yield from _on_loky(job, runs, workers)
    else:
        raise ValueError(f"the backend in joblib.parallel_config must be 'loky' or 'dask'; got {kind}")


def _on_loky(job: _Job, runs: list[_Run], workers: int) -> Iterator[dict]:
    """When one worker dies, loky ends all of them. So the runs then at work are done again one by one, before the rest.

    One of them may have caused the death; alone, it can't drag others with it.
    """
    parallel = partial(
        joblib.Parallel,
        backend="loky",
        n_jobs=max(2, min(workers, len(runs))),  # with one, joblib would do the runs in this process
        return_as="generator_unordered",
        batch_size=1,
        inner_max_num_threads=job.threads,
        initializer=end_with,
        initargs=(os.getpid(),),
    )
    waiting, in_vain = list(runs), 0
    alone: list[_Run] = []
    while waiting or alone:
        batch = alone[:1] or waiting
        done = set()
        try:
            for record in parallel()(joblib.delayed(_execute)(job, run) for run in batch):
                done.add(record["key"])
                yield record
        except BrokenProcessPool as error:
            for run in batch:
                if run.key not in done and (record := job.stored(run)) is not None:
                    done.add(record["key"])
                    yield record
            suspects = [run for run in batch if run.key not in done and job.marker(run).exists()]
            in_vain = 0 if done or suspects else in_vain + 1
            if in_vain == DEATHS:
                raise RuntimeError(f"the worker processes died {DEATHS} times before they started a run") from error
            _warn_of_death(len(suspects))
            alone = suspects + [run for run in alone if run not in suspects]
        left = [run for run in waiting if run.key not in done]
        waiting, alone = [run for run in left if run not in alone], [run for run in alone if run.key not in done]


def _on_dask(client, job: _Job, runs: list[_Run]) -> Iterator[dict]:
    """Dask gives a run of a dead worker to another one.

    The tasks go to Dask itself: joblib would wait for ever for one on which Dask has given up.
    """
    from distributed import CancelledError, KilledWorker, as_completed

    waiting = {run.key: run for run in runs}
    for attempt in range(2 * DEATHS):
        names = [f"{job.name}-{key}-{job.call}-{attempt}" for key in waiting]
        futures = client.map(partial(_execute, job), list(waiting.values()), key=names, pure=False)
        try:
            for future, outcome in as_completed(futures, with_results=True, raise_errors=False):
                if future.status == "finished":
                    del waiting[outcome["key"]]
                    future.release()
                    yield outcome
                elif future.status != "error":
                    raise RuntimeError("the Dask cluster is gone, or has dropped the runs")
                elif not isinstance(outcome[1], KilledWorker):
                    raise outcome[1]
        except CancelledError as error:
            raise RuntimeError("the Dask cluster is gone, or has dropped the runs") from error
        finally:
            with suppress(Exception):  # the cluster may be gone
                client.cancel(futures)
        if not waiting:
            return
        _warn_of_death(len(waiting))
    raise RuntimeError(f"Dask gave up on {len(waiting)} runs {2 * DEATHS} times, since their workers died")


def _warn_of_death(runs: int) -> None:
    again = f"{runs} unfinished runs are done again" if runs != 1 else "one unfinished run is done again"
    message = f"a worker process died, killed or out of memory; {again}, finished ones are on disk"
    warnings.warn(message, RuntimeWarning, stacklevel=4)


# Checking and tabulating ------------------------------------------------------------------------------


def _settings(grid) -> list[dict]:
    """The settings of each run, in order."""
    if isinstance(grid, dict):
        grid = {name: arguments.items(f"grid[{name!r}]", values) for name, values in grid.items()}
        if empty := [name for name, values in grid.items() if not values]:
            raise ValueError(f"grid[{empty[0]!r}] must have at least one value; got an empty list")
        chosen = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    else:
        listed = isinstance(grid, list | tuple) and grid and all(isinstance(one, dict) for one in grid)
        arguments.need(listed, "grid", "a dictionary of lists, or a list of dictionaries", grid)
        chosen = [dict(one) for one in grid]
    names = list(chosen[0])
    for one in chosen:
        if set(one) != set(names):
            raise ValueError(f"all settings of grid must have the same names; got {names} and {list(one)}")
        for name, value in one.items():
            if not isinstance(name, str) or name in ("seed", *COLUMNS):
                raise ValueError(
                    f"a setting must be named by a text other than seed, {', '.join(COLUMNS)}; got {name!r}"
                )
            one[name] = _setting(name, value)
    if twice := _twice(tuple(one[name] for name in names) for one in chosen):
        raise ValueError(f"grid names settings twice: {dict(zip(names, twice, strict=True))}")
    return [{name: one[name] for name in names} for one in chosen]


def _setting(name: str, value):
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.dim() == 0):
        value = value.item()
    if value is None or type(value) in (bool, int, str) or (type(value) is float and not math.isnan(value)):
        return value
    raise ValueError(
        f"the setting {name!r} must be a number, a text, a truth value or None; got {value!r}. "
        "For something else pass a name, and let the function make the thing"
    )


def _seeds(seeds) -> list[int]:
    seeds = arguments.items("seeds", seeds)
    seeds = arguments.wholes("seeds", seeds, max(len(seeds), 1), 2**32 - 1)
    if twice := _twice((seed,) for seed in seeds):
        raise ValueError(f"seeds must be distinct; {twice[0]} stands there twice")
    return seeds


def _twice(rows: Iterable[tuple]) -> tuple | None:
    """The first row that stands there more than once."""
    return next((row for row, count in Counter(rows).items() if count > 1), None)


def _table(runs: list[_Run], found: dict[str, dict]) -> DataFrame:
    from pandas import DataFrame  # here, since no worker needs it

    values = {run.key: results.decode(found[run.key]["values"]) for run in runs}
    names = dict.fromkeys(name for run in runs for name in values[run.key])
    columns = [*runs[0].settings, "seed", *names, *COLUMNS]
    rows = [
        [*run.settings.values(), run.seed]
        + [values[run.key].get(name) for name in names]
        + [found[run.key][name] for name in COLUMNS]
        for run in runs
    ]
    return DataFrame(rows, columns=columns)

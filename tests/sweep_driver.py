"""A sweep as a process of its own, which tests kill: ``sweep_driver.py MODE FOLDER LOG [deadly]``.

Each run writes its beginning and its end to LOG, with the process it is in. MODE is the number of workers, or dask. If
it is ``deadly``, two of the runs kill the process that they are in.
"""

import os
import signal
import sys
import time

import joblib
import torch

from gpbook_utils.sweeps import sweep

MODE, FOLDER, LOG = [*sys.argv[1:4], "", "", ""][:3]  # empty where pytest imports this file for its doctests
DEADLY = "deadly" in sys.argv
GRID, SEEDS = {"n": [3, 30]}, range(6)


def note(event, n, seed):
    with open(LOG, "a", encoding="utf-8") as file:
        file.write(f"{event} {n} {seed} {os.getpid()}\n")


def run(n, seed):
    note("begin", n, seed)
    if DEADLY and n == 30 and seed in (1, 4):
        os.kill(os.getpid(), signal.SIGKILL)
    x = torch.randn(n, dtype=torch.float64)
    time.sleep(0.15)
    note("end", n, seed)
    return {"total": x.sum(), "x": x}


def main():
    workers = int(MODE) if MODE.isdigit() else 1
    table = sweep(run, GRID, SEEDS, FOLDER, workers=workers)
    if DEADLY:
        print(table[["n", "seed", "status", "error"]].to_json(orient="values"))
    else:
        assert list(table.status) == ["finished"] * len(table), table
        print("|".join(x.numpy().tobytes().hex() for x in table.x))


if __name__ == "__main__":
    if MODE == "dask":
        from dask.distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster),
            joblib.parallel_config(backend="dask"),
        ):
            main()
    else:
        main()

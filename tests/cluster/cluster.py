"""A dask.distributed scheduler and two workers on this machine, one killed in the middle of a fleet.

    python tests/cluster/cluster.py [--count 2000]

The results have to be the same bytes as those of the local pool.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from bench_fleet import Coordinator, digests, tell  # noqa: E402
from distributed import Client  # noqa: E402
from make_bundles import make_bundles  # noqa: E402

_SCHEDULER = ["-m", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
_WORKER = ["-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard"]


class Cluster:
    """Processes as an operator starts them; ended with the block."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.stack = ExitStack()
        address = folder / "scheduler.json"
        self._start([*_SCHEDULER, "--scheduler-file", str(address)])
        options = ["--scheduler-file", str(address), "--local-directory", str(folder)]
        self.workers = [self._start([*_WORKER, *options]) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        log = self.stack.enter_context((self.folder / "cluster.log").open("ab"))
        process = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log, start_new_session=True)
        self.stack.callback(process.wait)
        self.stack.callback(_kill, process)
        return process

    def address(self) -> str:
        """Of the scheduler, once every worker has come."""
        with Client(scheduler_file=str(self.folder / "scheduler.json"), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=60)
            address: str = client.scheduler.address
            return address

    def kill_a_worker(self) -> None:
        """The worker and the nanny that would start it again."""
        _kill(self.workers[0])


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def compare(folder: Path, count: int) -> bool:
    """Whether the cluster's results are those of the local pool, a worker being killed after a third of them."""
    bundles = folder / "bundles"
    make_bundles(bundles, count)
    Coordinator(bundles, folder / "local").watch()
    with Cluster(folder, workers=2) as cluster:
        run = Coordinator(bundles, folder / "cluster", cluster.address())
        run.watch(count // 3)
        cluster.kill_a_worker()
        samples = run.watch()
    tell(samples)
    return digests(folder / "local") == digests(folder / "cluster")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    with tempfile.TemporaryDirectory() as folder:
        same = compare(Path(folder), parser.parse_args().count)
    sys.stdout.write(f"the results are {'the same bytes as those of the local pool' if same else 'DIFFERENT'}\n")
    sys.exit(not same)


if __name__ == "__main__":
    main()

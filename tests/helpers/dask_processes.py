"""A scheduler and workers as processes of their own on loopback, as a user would start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_STARTING_SECONDS = 60.0


class DaskProcesses:
    """dask's own command lines; `address` is the scheduler's. Workers have one thread each."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self._file = folder / "scheduler.json"
        self.scheduler = self.start_scheduler(port)

    @property
    def address(self) -> str:
        """The scheduler's."""
        return str(self._said()["address"])

    @property
    def port(self) -> int:
        """The scheduler's."""
        return int(self.address.rpartition(":")[2])

    def start_scheduler(self, port: int = 0) -> subprocess.Popen[bytes]:
        """A new scheduler process, listening when this returns."""
        self._file.unlink(missing_ok=True)
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--scheduler-file", str(self._file)]
        self.scheduler = self._run("dask_scheduler", *arguments)
        self._wait(lambda: bool(self._said()), "the scheduler")
        return self.scheduler

    def start_worker(self, *options: str) -> subprocess.Popen[bytes]:
        """A new worker process; it may take some seconds until it has told the scheduler."""
        arguments = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder)]
        worker = self._run("dask_worker", self.address, *arguments, *options)
        self.workers.append(worker)
        return worker

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process as a power cut would."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End everything."""
        for process in (*self.workers, self.scheduler):
            if process.poll() is None:
                self.kill(process)

    def _run(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"}
        with (self.folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
                stdout=log,
                stderr=log,
                env=environment,
            )

    def _said(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._file.read_text()))
        except (OSError, ValueError):
            return {}

    def _wait(self, ready: Any, what: str) -> None:
        until = time.monotonic() + _STARTING_SECONDS
        while not ready():
            if time.monotonic() > until:
                raise RuntimeError(f"{what} did not start; see the logs in {self.folder}")
            time.sleep(0.05)

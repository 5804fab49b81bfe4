"""A batch that is killed, restarted, spread over a cluster and robbed of a worker: always the same files?

    python benchmarks/batch_killed.py FOLDER [--count 40] [--model medt-hippocampus]

FOLDER: volumes (NIfTI). The first `count` of them and half of another one, which is a corrupt file, are segmented by
`medtransformer segment` as a user would start it, in processes of their own:
whole      without interruption
restarted  killed (SIGKILL to the whole process group) when half of the labels are there, and started again
jobs       the same with --jobs 2
cluster    on a dask scheduler with two workers on loopback, each a process
robbed     the same, one of the workers killed when a quarter of the labels are there
Every file of the others is compared with that of `whole`, byte by byte; summary.csv is held against the labels
themselves, read by nibabel.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

PATIENCE_S = 900.0
CORRUPT = "corrupt.nii.gz"
Process = subprocess.Popen[str]


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.01)


def start(log: Path, program: str, *arguments: str) -> Process:
    """A program of this environment in a process group of its own."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    with log.open("a", encoding="utf-8") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, text=True, start_new_session=True)


def kill(process: Process) -> None:
    """End a process and all that it started, as a power cut would."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def labels_in(folder: Path) -> list[Path]:
    """Finished labels."""
    return sorted(folder.glob("[!.]*.nii.gz"))


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder, hidden ones too, by what it holds."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def tail(line: str) -> str:
    """What the command's last line says, without its folders."""
    return line.partition(": ")[2].partition(";")[0]


class Bench:
    """The cases, and one run after another over them."""

    def __init__(self, source: Path, count: int, model: str, folder: Path) -> None:
        self.cases, self.folder, self.model, self.count = folder / "cases", folder, model, count
        self.cases.mkdir(parents=True, exist_ok=True)
        files = sorted(source.glob("*.nii.gz"))
        if len(files) <= count:
            raise SystemExit(f"{source} holds {len(files)} volumes; {count + 1} are needed")
        for file in files[:count]:
            shutil.copy(file, self.cases)
        whole = files[count].read_bytes()
        (self.cases / CORRUPT).write_bytes(whole[: len(whole) // 2])

    def begin(self, name: str, *more: str) -> tuple[Process, Path]:
        """Start the command; where its labels go."""
        out = self.folder / name
        arguments = (str(self.cases), "-o", str(out), "--model", self.model, *more)
        return start(self.folder / f"{name}.log", "medtransformer", "segment", *arguments), out

    def finish(self, name: str, process: Process) -> str:
        """Wait for its end; the last line it wrote."""
        code = process.wait(PATIENCE_S)
        said = (self.folder / f"{name}.log").read_text(encoding="utf-8").splitlines()
        if code != 2:
            raise SystemExit(f"{name}: exit code {code}, not 2, which a failed case means; it said {said[-3:]}")
        return next(line for line in reversed(said) if " done" in line)

    def whole(self) -> str:
        process, _ = self.begin("whole")
        return self.finish("whole", process)

    def restarted(self, name: str = "restarted", *more: str) -> str:
        process, out = self.begin(name, *more)
        wait_for(lambda: len(labels_in(out)) >= self.count // 2 or process.poll() is not None, "half of the labels")
        kill(process)
        time.sleep(1.0)  # processes that it started end with it
        before = {file: file.stat().st_mtime_ns for file in labels_in(out)}
        complete = [file for file in before if file.with_name(file.name.replace(".nii.gz", ".json")).exists()]
        left = len(list(out.glob(".*.part")))
        process, _ = self.begin(name, *more)
        last = self.finish(name, process)
        again = sum(file.stat().st_mtime_ns != before[file] for file in complete)
        return (
            f"killed with {len(before)} labels there and {left} half-written files; {again} finished cases were done "
            f"again; {tail(last)}"
        )

    def jobs(self) -> str:
        return self.restarted("jobs", "--jobs", "2")

    def cluster(self, name: str = "cluster", *, rob: bool = False) -> str:
        file, log = self.folder / f"{name}.scheduler.json", self.folder / f"{name}.dask.log"
        options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        processes = [start(log, "dask", "scheduler", *options)]
        try:
            wait_for(file.exists, "the scheduler")
            time.sleep(0.5)
            address = json.loads(file.read_text(encoding="utf-8"))["address"]
            for number in (1, 2):
                place = ("--local-directory", str(self.folder / f"worker-{number}"))
                options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", *place)
                processes.append(start(log, "dask", "worker", address, *options))
            wait_for(lambda: log.read_text(encoding="utf-8").count("Registered to") == 2, "two workers")
            process, out = self.begin(name, "--cluster", address)
            said = ""
            if rob:
                enough = self.count // 4
                wait_for(lambda: len(labels_in(out)) >= enough or process.poll() is not None, "a quarter of the labels")
                kill(processes[-1])
                said = f"a worker killed with {len(labels_in(out))} labels there; "
            return said + tail(self.finish(name, process))
        finally:
            for process in processes:
                kill(process)

    def robbed(self) -> str:
        return self.cluster("robbed", rob=True)


def check_tables(out: Path, count: int) -> str:
    """summary.csv and failures.csv against the labels."""
    import nibabel as nib
    import numpy as np

    with (out / "summary.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (out / "failures.csv").open(encoding="utf-8", newline="") as stream:
        failures = list(csv.DictReader(stream))
    columns = [name for name in rows[0] if name.endswith("[ml]")]
    worst = 0.0
    for row in rows:
        labels = nib.load(out / f"{row['case']}.nii.gz")
        voxel_ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
        counts = np.bincount(np.asarray(labels.dataobj).astype(int).ravel(), minlength=len(columns) + 1)[1:]
        worst = max(worst, *(abs(float(row[name]) - n * voxel_ml) for name, n in zip(columns, counts, strict=True)))
    if len(rows) != count or [row["case"] for row in failures] != [CORRUPT.removesuffix(".nii.gz")]:
        raise SystemExit(f"{len(rows)} rows and {failures} instead of {count} and the corrupt file")
    return f"{len(rows)} rows, millilitres within {worst:.1e} of the labels'; failure: {failures[0]['error']}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--model", default="medt-hippocampus")
    parser.add_argument("--only", default="restarted,jobs,cluster,robbed")
    parser.add_argument("--scratch", type=Path, help="a folder that keeps the files; a whole run in it is not repeated")
    options = parser.parse_args()
    with ExitStack() as stack:
        scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(options.source, options.count, options.model, scratch)
        begun = time.perf_counter()
        if not (scratch / "whole" / "summary.csv").exists():
            print(f"whole: {tail(bench.whole())} ({time.perf_counter() - begun:.0f} s)")
        print(f"   {check_tables(bench.folder / 'whole', options.count)}", flush=True)
        wanted = digests(bench.folder / "whole")
        for name in filter(None, options.only.split(",")):
            begun = time.perf_counter()
            said = getattr(bench, name)()
            found = digests(bench.folder / name)
            same = sum(found.get(file) == digest for file, digest in wanted.items())
            surplus = sorted(set(found) - set(wanted))
            print(f"{name}: {said} ({time.perf_counter() - begun:.0f} s)")
            print(
                f"   {same} of {len(wanted)} files are byte for byte the same; besides: {surplus or 'none'}", flush=True
            )


if __name__ == "__main__":
    main()

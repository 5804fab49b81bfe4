"""`medtransformer segment` ended in the middle: killed, interrupted, a process or a worker lost; nothing is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from batch_card import CARD
from batch_runs import PROGRAM, arguments, make_folder, make_volume, outputs, run_or_die

from napari_medtransformer.cli.app import run


def test_killed_in_the_middle_and_started_again_is_as_if_nothing_happened(card, tmp_path) -> None:
    source = make_folder(tmp_path / "in", 8)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(arguments(source, whole)) == 0

    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    program = [sys.executable, str(script), *arguments(source, broken)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 200
    while len(list(broken.glob("*.nii.gz"))) < 3:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(broken.glob("*.json")))
    assert 2 <= done < 8
    # what a kill in the middle of writing leaves
    (broken / ".case_05.nii.gz.0123abcd.part").write_bytes(b"half")

    assert run(arguments(source, broken)) == 0
    assert outputs(broken) == outputs(whole)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds children through /proc")
def test_processes_of_a_killed_batch_end_too(card, tmp_path) -> None:
    source = make_folder(tmp_path / "in", 8)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [*arguments(source, tmp_path / "out"), "--jobs", "2"]
    process = subprocess.Popen([sys.executable, str(script), *command])
    end = time.monotonic() + 200
    while not list((tmp_path / "out").glob("*.nii.gz")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text().split()]
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    while alive := [child for child in children if Path(f"/proc/{child}/cmdline").is_file() and running(child)]:
        assert time.monotonic() < end, f"{alive} live on"
        time.sleep(0.1)


def running(process: int) -> bool:
    """Whether a process is there and not a zombie that waits for somebody to ask."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks /proc for the time a process has computed")
def test_ctrl_c_in_the_middle_of_a_window_ends_at_once_and_keeps_what_is_done(tmp_path) -> None:
    source = make_folder(tmp_path / "in", 3)
    out, script = tmp_path / "out", tmp_path / "program.py"
    # a network whose window takes seconds: MONAI's SwinUNETR, not the compact one
    large = 'replace(CARD, architecture="monai-24", input=replace(CARD.input, size=(64, 96, 96)))'
    script.write_text(PROGRAM.replace("register(CARD)", f"register({large})").replace("sys\n", "sys\n" + REPLACE, 1))
    program = [sys.executable, str(script), *arguments(source, out)]
    # Where the tests run in a shell's background, Ctrl-C is ignored, and would be by what they start.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    end = time.monotonic() + 200
    while not (out / "case_00.json").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    window = computed(process.pid)
    while computed(process.pid) < window + 0.5:  # the second case's window is being worked on
        time.sleep(0.01)
    asked = computed(process.pid)
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 130
    assert "finished labels stay" in said.splitlines()[-1]
    # of the processor's time: other work on the machine does not count
    assert used.ru_utime + used.ru_stime - asked < 2
    assert sorted(outputs(out)) == ["case_00.json", "case_00.nii.gz"]


REPLACE = "from dataclasses import replace\n"


def computed(process: int) -> float:
    """Seconds of the processor's time that a process has used, those of all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_several_processes_give_the_same_files_even_when_one_dies(card, tmp_path) -> None:
    from napari_medtransformer.progress import Progress, Result
    from napari_medtransformer.segmentation.batch import batch_steps
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.segmentation.work import Errand, job_for

    source = make_folder(tmp_path / "in", 5)
    alone, many = tmp_path / "alone", tmp_path / "many"
    assert run(arguments(source, alone)) == 0
    many.mkdir()
    options = {"overlap": 0.25, "mirror": (), "plane": 0, "whole": False, "dtype": "auto", "uncertainty": False}
    errands = [Errand(case, many / f"{case.name}.nii.gz") for case in find_cases(source)]
    killed = False
    for step in batch_steps(errands, job_for(CARD, "random", "cpu", options), many, jobs=2):
        if isinstance(step, Progress) and not killed and list(many.glob("*.nii.gz")):
            killed = kill_a_child()
        if isinstance(step, Result):
            report = step.value
    assert killed
    assert not report.failed
    assert outputs(many) == outputs(alone)


@pytest.mark.slow
def test_a_case_that_ends_its_process_fails_alone(card, tmp_path, monkeypatch) -> None:
    from napari_medtransformer.progress import run_to_end
    from napari_medtransformer.segmentation import batch
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.segmentation.work import Errand, job_for

    monkeypatch.setattr(batch, "run_errand", run_or_die)
    source, out = make_folder(tmp_path / "in", 6), tmp_path / "out"
    out.mkdir()
    errands = [Errand(case, out / f"{case.name}.nii.gz") for case in find_cases(source)]
    report = run_to_end(batch.batch_steps(errands, job_for(CARD, "random", "cpu", {}), out, jobs=2))
    assert [one.name for one in report.failed] == ["case_01"]
    assert "processes died" in report.failed[0].error
    assert [one.name for one in report.done] == ["case_00", "case_02", "case_03", "case_04", "case_05"]


def kill_a_child() -> bool:
    """Kill one of this process's own worker processes."""
    import psutil

    children = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
    if not children:
        return False
    os.kill(children[0].pid, signal.SIGKILL)
    return True


@pytest.mark.slow
def test_a_cluster_of_two_workers_gives_the_same_files_and_does_a_killed_workers_cases_again(
    card, tmp_path, monkeypatch
) -> None:
    from dask_processes import DaskProcesses

    from napari_medtransformer.cluster import connect
    from napari_medtransformer.progress import Partial, Result
    from napari_medtransformer.segmentation.batch import batch_steps
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.segmentation.work import Errand, job_for

    (tmp_path / "dask").mkdir()
    processes = DaskProcesses(tmp_path / "dask")
    workers = [processes.start_worker() for _ in range(2)]
    try:
        # Paths as a user types them, from a folder in which no worker stands.
        monkeypatch.chdir(tmp_path)
        source = make_folder(Path("in"), 8)
        nib.save(nib.Nifti1Image(make_volume(0), np.eye(4)), source / "whole.nii.gz")
        (source / "corrupt.nii.gz").write_bytes((source / "whole.nii.gz").read_bytes()[:300])
        here, there = Path("here"), Path("there")
        assert run(arguments(source, here)) == 2
        there.mkdir()
        options = {"overlap": 0.25, "mirror": (), "plane": 0, "whole": False, "dtype": "auto", "uncertainty": False}
        errands = [Errand(case, there / f"{case.name}.nii.gz") for case in find_cases(source)]
        with connect(processes.address, timeout=120) as cluster:
            end = time.monotonic() + 120
            while len(cluster.workers()) < 2:
                assert time.monotonic() < end
                time.sleep(0.1)
            job = job_for(CARD, "random", "cpu", options)
            killed = False
            for step in batch_steps(errands, job, there, cluster=cluster):
                if isinstance(step, Partial) and not killed:
                    processes.kill(workers[0])
                    killed = True
                if isinstance(step, Result):
                    report = step.value
    finally:
        processes.stop()
    assert killed
    assert [one.name for one in report.failed] == ["corrupt"]
    assert len(report.done) == 9
    assert outputs(there) == outputs(here)


@pytest.mark.slow
def test_a_batch_whose_last_worker_died_ends_with_a_report(card, tmp_path) -> None:
    from dask_processes import DaskProcesses

    from napari_medtransformer.cluster import connect
    from napari_medtransformer.progress import Partial, Result
    from napari_medtransformer.segmentation.batch import batch_steps
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.segmentation.work import Errand, job_for

    (tmp_path / "dask").mkdir()
    source, out = make_folder(tmp_path / "in", 4), tmp_path / "out"
    out.mkdir()
    errands = [Errand(case, out / f"{case.name}.nii.gz") for case in find_cases(source)]
    processes = DaskProcesses(tmp_path / "dask")
    try:
        worker = processes.start_worker()
        with connect(processes.address, timeout=120) as cluster:
            cluster.patience = 2.0
            for step in batch_steps(errands, job_for(CARD, "random", "cpu", {}), out, cluster=cluster):
                if isinstance(step, Partial) and worker.poll() is None:
                    processes.kill(worker)
                    killed = time.monotonic()
                if isinstance(step, Result):
                    report = step.value
                assert worker.poll() is None or time.monotonic() - killed < 100
    finally:
        processes.stop()
    assert report.failed
    assert all("has no worker any more" in one.error for one in report.failed)
    assert len(report.done) + len(report.failed) == 4
    assert "case_03" in (out / "failures.csv").read_text()

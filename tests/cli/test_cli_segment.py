"""`medtransformer segment`: folders of any formats, killed and started again, with failures, on a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from batch_card import CARD

from napari_medtransformer.cli.app import run
from napari_medtransformer.models import register
from napari_medtransformer.models.registry import unregister

# The same card in a process of its own.
PROGRAM = """
import sys
from batch_card import CARD
from napari_medtransformer.cli import main
from napari_medtransformer.models import register
if __name__ == "__main__":
    register(CARD)
    main(sys.argv[1:])
"""


@pytest.fixture
def card():
    register(CARD)
    yield CARD
    unregister(CARD.name)


def make_volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, (20, 24, 22)).astype(np.int16)


def make_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        affine = np.diag([1.0, -1.0, 1.0, 1.0])
        nib.save(nib.Nifti1Image(make_volume(n), affine), folder / f"case_{n:02}.nii.gz")
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def arguments(source: Path, out: Path, *more: str) -> list[str]:
    return ["segment", str(source), "-o", str(out), "-m", CARD.name, "--weights", "random", "--device", "cpu", *more]


def test_one_file_becomes_labels_on_its_grid(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out, "--uncertainty", str(tmp_path / "entropy.nii.gz"), "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    image, labels = nib.load(source), nib.load(out)
    np.testing.assert_array_equal(labels.affine, image.affine)
    data = np.asarray(labels.dataobj)
    assert data.shape == image.shape
    assert said["volumes_ml"]["head"] == pytest.approx((data == 1).sum() / 1000)
    entropy = np.asarray(nib.load(tmp_path / "entropy.nii.gz").dataobj)
    assert 0 < entropy.max() <= np.log(3) + 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entropy.nii.gz", "in", "labels.nii.gz"]


def test_a_region_counts_voxels_as_the_file_does(card, tmp_path) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out, "--region", "3,10,2,15,20,18")) == 0
    outside = np.asarray(nib.load(out).dataobj)
    assert outside[3:15, 10:20, 2:18].any()
    outside[3:15, 10:20, 2:18] = 0
    assert not outside.any()


def test_labels_compared_with_themselves_agree(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out)) == 0
    capsys.readouterr()
    assert run(arguments(source, tmp_path / "again.nii.gz", "--reference", str(out), "--json")) == 0
    scores = json.loads(capsys.readouterr().out)["agreement"]
    assert scores
    assert all(score["dice"] == 1 and score["hd95_mm"] == 0 for score in scores)


def test_a_folder_of_any_formats_is_done_but_for_the_corrupt_one(card, tmp_path, capsys, shared_data) -> None:
    source = make_folder(tmp_path / "in", 1)
    image = sitk.GetImageFromArray(make_volume(7))
    (source / "deeper").mkdir()
    sitk.WriteImage(image, source / "deeper" / "one.nrrd")
    sitk.WriteImage(image, source / "deeper" / "two.mha")
    sitk.WriteImage(image, source / "case_00.mhd")  # a name that is taken, and a file of voxels beside it
    np.save(source / "array.npy", make_volume(8))
    (source / "corrupt.nii.gz").write_bytes((source / "case_00.nii.gz").read_bytes()[:500])
    (source / "notes.txt").write_text("no volume")
    out = tmp_path / "out"
    assert run(arguments(source, out, "--json")) == 2
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    names = ["array", "case_00_mhd", "case_00_nii_gz", "deeper/one", "deeper/two"]
    assert [one["case"] for one in said["done"]] == names
    assert [one["case"] for one in said["failed"]] == ["corrupt"]
    assert captured.err.splitlines()[-1].startswith("error: 1 of 6 cases failed")  # after what readers warn of
    assert "corrupt.nii.gz" in (out / "failures.csv").read_text()
    rows = (out / "summary.csv").read_text().splitlines()
    assert rows[0] == "case,input,head [ml],tail [ml]"
    assert len(rows) == 6
    for name in names:
        labels = np.asarray(nib.load(out / f"{name}.nii.gz").dataobj)
        assert labels.size == 20 * 24 * 22
    # one and two hold the same voxels on the same grid
    assert rows[4].split(",")[2:] == rows[5].split(",")[2:]

    (source / "corrupt.nii.gz").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    assert run(arguments(source, out)) == 0
    assert "5 done, 5 of them before, 0 failed" in capsys.readouterr().out
    assert not (out / "failures.csv").exists()
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}


def test_a_folder_of_dicom_slices_is_one_case(card, tmp_path, capsys, shared_data) -> None:
    import shutil

    source = tmp_path / "in" / "patient"
    shutil.copytree(shared_data / "dcmqi_ct", source, ignore=lambda folder, names: [
        name for name in names if not name.endswith(".dcm") or name in ("liver.dcm", "partial_overlaps.dcm")
        if not (Path(folder) / name).is_dir()
    ])  # fmt: skip
    from napari_medtransformer.segmentation.cases import find_cases

    cases = find_cases(tmp_path / "in")
    assert len(cases) == 1
    assert len(cases[0].files) == 3


def test_a_changed_input_or_option_is_done_again_and_a_renamed_copy_is_not_mixed_up(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 2)
    out = tmp_path / "out"
    assert run(arguments(source, out)) == 0
    nib.save(nib.Nifti1Image(make_volume(9), np.eye(4)), source / "case_01.nii.gz")
    capsys.readouterr()
    assert run(arguments(source, out, "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["done_before"] for one in said["done"]] == [True, False]
    assert run(arguments(source, out, "--overlap", "0.5", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["done_before"] for one in said["done"]] == [False, False]


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


def test_two_batches_do_not_write_to_one_folder(card, tmp_path, capsys) -> None:
    from filelock import FileLock

    source = make_folder(tmp_path / "in", 1)
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".medtransformer.lock"):
        assert run(arguments(source, out)) == 2
    assert "another batch is writing" in capsys.readouterr().err


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


def test_an_input_that_went_away_is_reported_and_the_others_are_done(card, tmp_path) -> None:
    from napari_medtransformer.progress import run_to_end
    from napari_medtransformer.segmentation.batch import batch_steps
    from napari_medtransformer.segmentation.cases import find_cases
    from napari_medtransformer.segmentation.work import Errand, job_for

    source, out = make_folder(tmp_path / "in", 3), tmp_path / "out"
    out.mkdir()
    job = job_for(CARD, "random", "cpu", {})
    errands = [Errand(case, out / f"{case.name}.nii.gz") for case in find_cases(source)]
    assert not run_to_end(batch_steps(errands, job, out)).failed
    # done before, with a record; gone between looking into the folder and looking into the file
    (source / "case_01.nii.gz").unlink()
    report = run_to_end(batch_steps(errands, job, out))
    assert [one.name for one in report.failed] == ["case_01"]
    assert [(one.name, one.skipped) for one in report.done] == [("case_00", True), ("case_02", True)]


@pytest.mark.parametrize(
    "more, words",
    [
        (["--overlap", "2"], "overlap"),
        (["--mirror", "q"], "--mirror"),
        (["--plane", "7"], "axis"),
        (["--region", "1,2,3"], "--region"),
        (["--device", "warp"], "device"),
        (["--cluster", "nowhere"], "scheduler"),
    ],
)
def test_a_users_mistake_is_one_line(card, tmp_path, capsys, more, words) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    assert run(arguments(source, tmp_path / "labels.nii.gz", *more)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert words in said
    assert not (tmp_path / "labels.nii.gz").exists()


def test_a_reference_on_another_grid_is_refused_before_the_work(card, tmp_path, capsys) -> None:
    source = make_folder(tmp_path / "in", 1) / "case_00.nii.gz"
    moved = np.diag([1.0, -1.0, 1.0, 1.0])
    moved[0, 3] = 5
    shape = nib.load(source).shape
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), moved), tmp_path / "reference.nii.gz")
    out = tmp_path / "labels.nii.gz"
    assert run(arguments(source, out, "--reference", str(tmp_path / "reference.nii.gz"))) == 2
    assert "lies on another grid" in capsys.readouterr().err
    assert not out.exists()


def test_a_model_that_waits_for_clicks_and_an_empty_folder_are_refused(card, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["segment", str(tmp_path / "empty"), "-o", str(tmp_path / "out"), "-m", "medt-click-tiny"]) == 2
    assert "waits for clicks" in capsys.readouterr().err
    assert run(arguments(tmp_path / "empty", tmp_path / "out")) == 2
    assert "holds no volume" in capsys.readouterr().err

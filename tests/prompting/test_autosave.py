"""Autosave: whatever was done is there again after a crash, and a full disk is told and loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_medtransformer.errors import InvalidSession
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.prompting import PointPrompt, PromptSession
from napari_medtransformer.prompting.autosave import Autosave, recoverable
from napari_medtransformer.volumes import Volume

resource = pytest.importorskip("resource", reason="needs POSIX limits and signals")
WINDOW = (0.0, 100.0)

CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from region_model import RegionModel
from napari_medtransformer.volumes import Volume
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.prompting.autosave import Autosave
from napari_medtransformer.progress import run_to_end

data = np.zeros((12, 20, 26), np.int16)
data[3:9, 4:12, 5:15] = 100
data[3:9, 4:12, 18:24] = 60
session = PromptSession(RegionModel(), Volume(data, np.diag([2.0, 1.0, 1.0, 1.0])), window=(0.0, 100.0), part="time 3")
autosave = Autosave(session, Path(sys.argv[1]))
session.add_point((5, 8, 10))
session.add_point((5, 8, 20), object_id=2, axis=2)
run_to_end(session.propagate(1))
session.add_scribble(data[6] == 60, axis=0, index=6, object_id=2)
session.add_lasso([(7, 3, 4), (7, 3, 16), (7, 13, 10)], object_id=3)
session.rename_object(3, "drawn")
session.smooth(1)
assert autosave.flush()
np.save(Path(sys.argv[1]) / "labels.npy", session.labels)
print(len(session.prompts), flush=True)
number = 0
while True:  # until it is killed, in the middle of work
    session.add_point((4, 5 + number % 6, 6 + number % 7), object_id=4)
    number += 1
"""


@pytest.fixture
def session(region_model: PromptableModel, blocks: Volume) -> PromptSession:
    return PromptSession(region_model, blocks, window=WINDOW)


def killed_child(folder: Path) -> int:
    """A process that is killed at work. Returns how many prompts it surely had."""
    command = [sys.executable, "-c", CHILD, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        prompts = int(child.stdout.readline())
        assert recoverable(folder) == []  # it is being worked on
        time.sleep(0.5)
        child.send_signal(signal.SIGKILL)
    return prompts


def test_after_a_kill_every_prompt_object_and_mask_is_there(tmp_path: Path, region_model: Any) -> None:
    prompts = killed_child(tmp_path)
    (found,) = recoverable(tmp_path)
    assert (found.facts.part, found.facts.volume_shape) == ("time 3", (12, 20, 26))
    assert found.prompts > prompts
    data = np.zeros((12, 20, 26), np.int16)
    data[3:9, 4:12, 5:15] = 100
    data[3:9, 4:12, 18:24] = 60
    volume = Volume(data, np.diag([2.0, 1.0, 1.0, 1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last step may be cut off
        back = PromptSession.recover(found.path, region_model, volume)
    assert len(back.prompts) == found.prompts
    assert [one.name for one in back.objects][:3] == ["", "", "drawn"]
    assert back.unsaved
    back.clear_object(4)
    assert np.array_equal(back.labels, np.load(tmp_path / "labels.npy"))
    with pytest.raises(InvalidSession, match="another volume"):
        PromptSession.recover(found.path, region_model, Volume(data + 1, np.eye(4)))
    found.discard()
    assert recoverable(tmp_path) == []


def test_what_undo_did_is_kept_too(session: PromptSession, tmp_path: Path) -> None:
    autosave = Autosave(session, tmp_path)
    session.add_point((5, 8, 10))
    session.add_point((6, 8, 10))
    session.new_object("empty")
    session.undo()
    session.undo()
    autosave.close()
    (found,) = recoverable(tmp_path)
    back = PromptSession.recover(found.path, session.model, session.volume)
    assert back.state == session.state
    assert np.array_equal(back.labels, session.labels)
    assert list(back.prompts) == [1]


def test_a_prompt_without_prediction_is_pending_again(session: PromptSession, tmp_path: Path) -> None:
    autosave = Autosave(session, tmp_path)
    session.add_prompt(PointPrompt((5.0, 8.0, 10.0)))
    autosave.close()
    back = PromptSession.recover(recoverable(tmp_path)[0].path, session.model, session.volume)
    assert len(back.pending()) == 1


def test_a_step_cut_off_by_a_crash_is_left_out_and_said(session: PromptSession, tmp_path: Path) -> None:
    autosave = Autosave(session, tmp_path)
    session.add_point((5, 8, 10))
    assert autosave.flush()
    labels, whole = session.labels, autosave.path.stat().st_size
    session.add_point((6, 8, 20), object_id=2)
    autosave.close()
    data = autosave.path.read_bytes()
    assert len(data) > whole + 50
    autosave.path.write_bytes(data[: whole + 50])
    with pytest.warns(UserWarning, match="last step was not written whole"):
        back = PromptSession.recover(autosave.path, session.model, session.volume)
    assert np.array_equal(back.labels, labels)


def test_many_steps_cost_little_and_the_file_stays_small(
    session: PromptSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medtransformer.prompting.journal._GROWTH_BYTES", 100_000)
    autosave = Autosave(session, tmp_path)
    for number in range(200):
        session.add_point((number % 12, 8, 10), object_id=1 + number % 3)
        assert autosave.flush()
    size = autosave.path.stat().st_size
    autosave.close()
    session.save(tmp_path / "whole.medt")
    assert size < 100_000 + 6 * (tmp_path / "whole.medt").stat().st_size
    back = PromptSession.recover(autosave.path, session.model, session.volume)
    assert np.array_equal(back.labels, session.labels)
    assert len(back.prompts) == 200


def test_a_full_disk_is_told_and_loses_nothing(session: PromptSession, tmp_path: Path) -> None:
    told: list[str] = []
    autosave = Autosave(session, tmp_path, on_problem=told.append)
    session.add_point((5, 8, 10))
    assert autosave.flush()
    before, limits = session.labels, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (autosave.path.stat().st_size + 100, limits[1]))
    try:
        session.add_point((6, 8, 20), object_id=2)
        assert autosave.flush() is False
        session.add_point((7, 8, 20), object_id=2)
        assert autosave.flush() is False
        assert len(told) == 1
        assert "not kept on disk" in told[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            half = PromptSession.recover(autosave.path, session.model, session.volume)
        assert np.array_equal(half.labels, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    session.add_point((8, 8, 20), object_id=2)
    deadline = time.monotonic() + 20
    while not autosave.flush() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert autosave.problem is None
    autosave.close()
    back = PromptSession.recover(autosave.path, session.model, session.volume)
    assert np.array_equal(back.labels, session.labels)
    assert back.prompts == session.prompts


def test_a_session_that_is_worked_on_is_not_offered_and_one_that_was_discarded_is_gone(
    session: PromptSession, tmp_path: Path
) -> None:
    autosave = Autosave(session, tmp_path)
    session.add_point((5, 8, 10))
    assert autosave.flush()
    assert recoverable(tmp_path) == []
    autosave.close(discard=True)
    assert list(tmp_path.iterdir()) == []


def test_another_model_goes_on_with_the_masks_there_are(
    session: PromptSession, click_model: PromptableModel, tmp_path: Path
) -> None:
    autosave = Autosave(session, tmp_path)
    session.add_point((5, 8, 10))
    run_to_end(session.propagate())
    autosave.close()
    back = PromptSession.recover(autosave.path, click_model, session.volume)
    assert np.array_equal(back.labels, session.labels)
    assert back.pending() == []
    back.add_point((5, 8, 20))
    back.undo()
    assert np.array_equal(back.labels, session.labels)


def test_a_step_costs_the_window_less_than_ten_milliseconds(session: PromptSession, tmp_path: Path) -> None:
    """Thread time of the listener alone, with masks on many slices: writing is another thread's."""
    for axis, count in enumerate(session.volume.shape):
        for index in range(count):
            session.add_prompt(PointPrompt(tuple(float(index if a == axis else 5) for a in range(3)), axis=axis))  # type: ignore[arg-type]
    session.predict_pending()
    autosave = Autosave(session, tmp_path)
    costs = []
    for _ in range(20):
        begun = time.thread_time()
        autosave._changed(session)
        costs.append(time.thread_time() - begun)
    autosave.close(discard=True)
    assert sorted(costs)[10] < 0.01


def test_a_fault_while_writing_is_told_and_nobody_waits_for_it(
    session: PromptSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    autosave = Autosave(session, tmp_path, on_problem=told.append)

    def fail(moment: object) -> None:
        raise ValueError("something\nnobody thought of")

    monkeypatch.setattr(autosave._journal, "write", fail)
    session.add_point((5, 8, 10))
    started = time.monotonic()
    assert autosave.flush() is False
    monkeypatch.undo()
    autosave.close()
    assert time.monotonic() - started < 15
    assert "something nobody thought of" in told[0]


def test_writing_asks_torch_for_no_team_of_threads(session: PromptSession, tmp_path: Path, monkeypatch) -> None:
    # A second team keeps all of them from looking out for work: each later click would take half as long again.
    before, counts, facts_later = torch.get_num_threads(), [], session.facts_later
    torch.set_num_threads(3)
    try:

        def counted():
            facts = facts_later()
            return lambda: (counts.append(torch.get_num_threads()), facts())[1]

        monkeypatch.setattr(session, "facts_later", counted)
        autosave = Autosave(session, tmp_path)
        session.add_point((5, 8, 10))
        assert autosave.flush()
        autosave.close(discard=True)
        assert counts
        assert set(counts) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)

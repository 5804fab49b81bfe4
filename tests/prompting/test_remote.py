"""Prompts answered on a real cluster: the same masks as here, and nothing lost when its worker is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dask_processes import DaskProcesses

import napari_medtransformer as nmt
from napari_medtransformer.cluster import Cluster, connect
from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.prompting import PromptSession, SliceKey
from napari_medtransformer.prompting.remote import RemoteModel
from napari_medtransformer.prompting.rounding import logits_from_levels, rounded_levels
from napari_medtransformer.volumes import Volume


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    started = DaskProcesses(tmp_path_factory.mktemp("dask"))
    started.start_worker()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def cluster(processes: DaskProcesses) -> Iterator[Cluster]:
    with connect(processes.address, timeout=120) as connected:
        yield connected


@pytest.fixture(scope="module")
def volume(repository: Path) -> Volume:
    """A few slices through liver and spleen."""
    whole = nmt.read_volume(repository / "sample_data" / "example_ct.nii.gz")
    return Volume(np.array(whole.data[70:82]), whole.affine, whole.modality)


@pytest.fixture(scope="module")
def model() -> PromptableModel:
    return nmt.load_model("medt-click-tiny", device="cpu", dtype="float32")


def work(session: PromptSession) -> np.ndarray:
    session.add_point((5, 50, 85))
    session.add_point((5, 60, 80), positive=False)
    session.add_box((6, 30, 60), (6, 70, 100), object_id=2)
    session.add_point((3, 50, 85), axis=2, object_id=3)
    run_to_end(session.propagate(1))
    return session.labels


def until(ready: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ready()


@pytest.mark.slow
def test_a_worker_gives_the_same_masks_as_here_for_bundled_and_for_other_weights(
    cluster: Cluster, model: PromptableModel, volume: Volume
) -> None:
    other = nmt.load_model("medt-click-tiny", weights="random", device="cpu", dtype="float32")
    for one in (model, other):
        here = PromptSession(one, volume)
        there = PromptSession(one, volume)
        remote = RemoteModel(one, cluster)
        there.use(remote)
        assert there.place == cluster.address
        list(there.prefetch(0, [5, 6]))
        assert np.array_equal(work(there), work(here))
        assert remote.answered_there >= 4
        assert remote.answered_here == 0
        assert not there.is_encoded(0, 5)  # nothing was computed here
        remote.close()


@pytest.mark.slow
def test_a_worker_killed_between_two_clicks_loses_nothing_and_it_is_said(
    processes: DaskProcesses, cluster: Cluster, model: PromptableModel, volume: Volume
) -> None:
    told: list[str] = []
    session, here = PromptSession(model, volume), PromptSession(model, volume)
    remote = RemoteModel(model, cluster, on_state=told.append)
    session.use(remote)
    session.add_point((5, 50, 85))
    there_before = remote.answered_there
    processes.kill(processes.workers[-1])
    session.add_point((6, 50, 85))  # nobody is there: answered here
    assert remote.answered_here == 1
    assert session.place == "here"
    assert "answered here" in told[0]
    processes.start_worker()
    until(lambda: session.place == cluster.address)
    assert "is back" in told[-1]
    session.add_point((5, 60, 80), positive=False)  # a new worker: the first click is replayed with it
    assert remote.answered_there == there_before + 1
    for position, positive in (((5, 50, 85), True), ((6, 50, 85), True), ((5, 60, 80), False)):
        here.add_point(position, positive=positive)
    assert np.array_equal(session.labels, here.labels)
    one, other = session.candidates(SliceKey(1, 0, 5)), here.candidates(SliceKey(1, 0, 5))
    assert one is not None
    assert other is not None
    assert np.array_equal(one.masks, other.masks)
    session.use(None)
    assert session.place == "here"
    remote.close()


def test_a_cluster_with_another_model_is_refused(
    model: PromptableModel, volume: Volume, region_model: PromptableModel
) -> None:
    session = PromptSession(region_model, volume)
    with pytest.raises(UnsupportedModel, match="give it the session's model"):
        session.use(RemoteModel(model, Cluster("tcp://127.0.0.1:1", 1.0)))


def test_the_same_model_answers_where_it_did_through_another_window_and_another_model_here(
    model: PromptableModel, volume: Volume, region_model: PromptableModel
) -> None:
    session = PromptSession(model, volume)
    session.use(RemoteModel(model, Cluster("tcp://127.0.0.1:1", 1.0)))
    session.set_window((-100, 200))
    assert session.window == (-100, 200)
    assert session.place == "tcp://127.0.0.1:1"
    session.switch_model(region_model)
    assert session.place == "here"


def test_logits_in_steps_keep_their_sign_and_are_off_by_a_step_at_most() -> None:
    logits = np.concatenate([np.linspace(-8, 8, 1601), [1e-6, -1e-6, 0.0]]).astype(np.float32)
    back = logits_from_levels(rounded_levels(logits))
    assert np.array_equal(back > 0, logits > 0)
    assert np.abs(back - np.clip(logits, -6, 6)).max() <= 1 / 20 + 1e-6
    assert np.array_equal(rounded_levels(back), rounded_levels(logits))

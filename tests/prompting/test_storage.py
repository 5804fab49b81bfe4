"""Sessions as files: everything comes back, for the same volume and model only, whole or not at all."""

from __future__ import annotations

import json
import random
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_medtransformer.errors import CannotWrite, InvalidSession, MedTransformerError, UnreadableFile
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.prompting import PointPrompt, PromptSession, SliceKey, slice_model, storage
from napari_medtransformer.prompting.fingerprints import earlier_fingerprints
from napari_medtransformer.volumes import Volume

WINDOW = (0.0, 100.0)


@pytest.fixture
def session(region_model: PromptableModel, blocks: Volume) -> PromptSession:
    """With every kind of thing there is to be saved."""
    session = PromptSession(region_model, blocks, window=WINDOW)
    session.add_point((5, 8, 10), axis=0)
    session.add_point((5, 5, 6), positive=False, object_id=2, axis=1)
    session.add_box((5, 4, 17), (5, 12, 25), object_id=2)
    session.rename_object(2, "the other – ü")
    session.add_mask(blocks.data[:, :, 20] == 60, axis=2, index=20, object_id=2)
    session.cycle_candidate(SliceKey(1, 0, 5))
    run_to_end(session.propagate(1))
    session.new_object("empty")
    return session


def test_everything_comes_back(session: PromptSession, region_model: PromptableModel, tmp_path: Path) -> None:
    path = tmp_path / "s.medt"
    session.save(path)
    loaded = PromptSession.load(path, region_model, session.volume)
    assert loaded.prompts == session.prompts
    assert loaded.objects == session.objects
    assert loaded.window == session.window
    assert loaded.labels.tobytes() == session.labels.tobytes()
    assert loaded.pending() == []
    assert not loaded.can_undo
    key = SliceKey(1, 0, 5)
    one, other = loaded.candidates(key), session.candidates(key)
    assert one is not None
    assert other is not None
    assert one.chosen == other.chosen == 1
    assert np.array_equal(one.masks, other.masks)
    loaded.cycle_candidate(key)
    session.cycle_candidate(key)
    assert loaded.labels.tobytes() == session.labels.tobytes()
    assert loaded.add_point((6, 8, 10)) == session.add_point((6, 8, 10))
    assert list(tmp_path.iterdir()) == [path]


def test_a_mask_that_was_chosen_and_then_refined_comes_back(
    session: PromptSession, region_model: PromptableModel, tmp_path: Path
) -> None:
    session.add_point((5, 9, 9))  # another mask was chosen there
    picked = session.state.slices[SliceKey(1, 0, 5)].picked
    assert picked is not None
    session.save(tmp_path / "s.medt")
    loaded = PromptSession.load(tmp_path / "s.medt", region_model, session.volume)
    assert loaded.state.slices[SliceKey(1, 0, 5)].picked == picked
    assert loaded.pending() == []
    assert loaded.labels.tobytes() == session.labels.tobytes()


def test_a_prompt_not_yet_predicted_is_pending_after_loading(
    session: PromptSession, region_model: PromptableModel, tmp_path: Path
) -> None:
    request = session.add_prompt(PointPrompt((7.0, 8.0, 20.0), object_id=3))
    session.save(tmp_path / "s.medt")
    loaded = PromptSession.load(tmp_path / "s.medt", region_model, session.volume)
    assert [one.key for one in loaded.pending()] == [request.key]
    loaded.predict_pending()
    session.predict_pending()
    assert loaded.labels.tobytes() == session.labels.tobytes()


def test_the_same_voxels_read_again_are_the_same_volume(
    session: PromptSession, region_model: PromptableModel, tmp_path: Path
) -> None:
    session.save(tmp_path / "s.medt")
    big_endian = session.volume.data.astype(">i2")
    PromptSession.load(tmp_path / "s.medt", region_model, replace(session.volume, data=big_endian))


@pytest.mark.parametrize("change", ["voxel", "spacing", "shape"])
def test_another_volume_is_refused(
    session: PromptSession, region_model: PromptableModel, tmp_path: Path, change: str
) -> None:
    session.save(tmp_path / "s.medt")
    data, affine = session.volume.data.copy(), session.volume.affine.copy()
    if change == "voxel":
        data[11, 19, 25] += 1
    elif change == "spacing":
        affine[0, 2] *= 1.001
    else:
        data = data[:-1]
    with pytest.raises(InvalidSession, match="belongs to another volume"):
        PromptSession.load(tmp_path / "s.medt", region_model, Volume(data, affine))


def test_another_model_and_other_weights_are_refused(
    session: PromptSession, region_model: Any, click_model: PromptableModel, tmp_path: Path
) -> None:
    session.save(tmp_path / "s.medt")
    with pytest.raises(InvalidSession, match="made with region-growing, not with medt-click-tiny"):
        PromptSession.load(tmp_path / "s.medt", click_model, session.volume)
    with torch.no_grad():
        region_model.network.weight += 1
    with pytest.raises(InvalidSession, match="other weights of region-growing"):
        PromptSession.load(tmp_path / "s.medt", region_model, session.volume)


def test_a_session_opens_in_another_number_format_and_where_files_still_told_it(
    session: PromptSession, region_model: PromptableModel, tmp_path: Path, monkeypatch
) -> None:
    kept = tmp_path / "s.medt"
    session.save(kept)
    monkeypatch.setattr(region_model, "dtype", torch.bfloat16)  # as on a processor with units for it
    again = PromptSession.load(kept, region_model, session.volume)
    np.testing.assert_array_equal(again.labels, session.labels)
    with monkeypatch.context() as before:
        before.setattr(slice_model, "model_fingerprint", lambda model: min(earlier_fingerprints(model)))
        before.setattr(storage, "check_model", lambda *_: None)
        PromptSession.load(kept, region_model, session.volume).save(tmp_path / "old.medt")
    old = PromptSession.load(tmp_path / "old.medt", region_model, session.volume)
    np.testing.assert_array_equal(old.labels, session.labels)


def test_what_is_no_session_is_refused(region_model: PromptableModel, blocks: Volume, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file"):
        PromptSession.load(tmp_path / "nothing.medt", region_model, blocks)
    (tmp_path / "text.medt").write_text("hello")
    with pytest.raises(InvalidSession, match="no saved session"):
        PromptSession.load(tmp_path / "text.medt", region_model, blocks)
    with zipfile.ZipFile(tmp_path / "zip.medt", "w") as archive:
        archive.writestr("other.txt", "hello")
    with pytest.raises(InvalidSession, match="no saved session"):
        PromptSession.load(tmp_path / "zip.medt", region_model, blocks)


def rewrite(path: Path, change: Any) -> None:
    """Let `change` alter what a session file says."""
    with zipfile.ZipFile(path) as archive:
        said, masks = json.loads(archive.read("session.json")), archive.read("masks.npz")
    change(said)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("session.json", json.dumps(said))
        archive.writestr("masks.npz", masks)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(version=99),
        lambda said: said.update(format="other"),
        lambda said: said.pop("window"),
        lambda said: said.update(window=[1, 0]),
        lambda said: said["slices"][0].update(index=99),
        lambda said: said["slices"][0].update(axis=7),
        lambda said: said["slices"][0].update(object_id=0),
        lambda said: said["slices"][0]["prompts"][0].update(kind="spell"),
        lambda said: said["slices"][0]["prompts"][0].update(position_zyx=[5, 8, 999]),
        lambda said: said["slices"][0].update(candidate=17),
        lambda said: said["slices"][0].update(picked=[1, 0]),  # no prompt follows that refines it
        lambda said: said["slices"][0].update(picked=[0, None]),
        lambda said: said["slices"][0]["prediction"].update(masks=[9999]),
        lambda said: said["slices"][0]["prediction"].update(best=-1),
        lambda said: said["objects"].pop(0),
        lambda said: said["objects"].append(said["objects"][0]),
        lambda said: said.update(slices=3),
    ],
)
def test_a_session_that_says_impossible_things_is_refused(
    session: PromptSession, region_model: PromptableModel, tmp_path: Path, change: Any
) -> None:
    path = tmp_path / "s.medt"
    session.save(path)
    rewrite(path, change)
    with pytest.raises(InvalidSession) as caught:
        PromptSession.load(path, region_model, session.volume)
    assert "\n" not in str(caught.value)


def test_a_file_damaged_anywhere_gives_a_session_or_an_error_of_ours(
    session: PromptSession, region_model: PromptableModel, tmp_path: Path
) -> None:
    session.save(tmp_path / "whole.medt")
    whole = (tmp_path / "whole.medt").read_bytes()
    dice = random.Random(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        (tmp_path / "s.medt").write_bytes(damaged[: dice.choice((len(damaged), dice.randrange(len(damaged))))])
        try:
            PromptSession.load(tmp_path / "s.medt", region_model, session.volume)
        except MedTransformerError:
            refused += 1
    assert refused > 200


def test_a_session_is_written_whole_or_not_at_all(session: PromptSession, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="no folder"):
        session.save(tmp_path / "missing" / "s.medt")
    with pytest.raises(CannotWrite, match="is a folder"):
        session.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_keeps_the_session_saved_before(session: PromptSession, tmp_path: Path) -> None:
    import resource
    import signal

    path = tmp_path / "s.medt"
    session.save(path)
    before = path.read_bytes()
    session.add_point((6, 8, 20), object_id=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(CannotWrite, match="not written"):
            session.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

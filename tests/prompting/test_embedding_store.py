"""Embeddings on disk: found again for the same pixels and weights, never for others, whatever happens to the files."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.click import ClickModel
from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.prompting import EmbeddingStore, PromptSession
from napari_medtransformer.volumes import Volume

WINDOW = (0.0, 100.0)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.zarr.zip"))


def test_a_volume_opened_again_is_not_encoded_again_and_gives_the_same_masks(
    make_region_model: Any, blocks: Volume, tmp_path: Path
) -> None:
    first, second = make_region_model(), make_region_model()
    second.network.load_state_dict(first.network.state_dict())
    one = PromptSession(first, blocks, WINDOW, store=EmbeddingStore(tmp_path))
    one.add_point((5, 8, 10))
    one.add_point((5, 8, 10), axis=2, object_id=2)
    assert len(first.encoded) == len(files(tmp_path)) == 2
    other = PromptSession(second, replace(blocks, data=blocks.data.copy()), WINDOW, store=EmbeddingStore(tmp_path))
    other.add_point((5, 8, 10))
    other.add_point((5, 8, 10), axis=2, object_id=2)
    assert second.encoded == []
    assert np.array_equal(one.labels, other.labels)


def test_features_come_back_bit_for_bit_in_every_number_format(click_model: PromptableModel, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 50), np.float32)
    store = EmbeddingStore(tmp_path)
    encoded = store.get(click_model, image, (1.0, 2.0))
    read = EmbeddingStore(tmp_path).get(click_model, image, (1.0, 2.0))
    assert read.placement == encoded.placement
    assert len(read.features) == len(encoded.features)
    for one, other in zip(read.features, encoded.features):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert (store.hits, store.misses) == (0, 1)


@pytest.mark.parametrize("change", ["voxel", "window", "weight", "spacing", "precision"])
def test_what_changed_is_never_taken_for_what_was(blocks: Volume, tmp_path: Path, change: str) -> None:
    config = ClickConfig(input_size=64, stem_channels=(8, 16, 16), width=32, depth=2, heads=2, decoder_width=32)
    torch.manual_seed(0)
    model = ClickModel(find_card("medt-click-tiny"), ClickNetwork(config), torch.device("cpu"), torch.float32)
    store = EmbeddingStore(tmp_path)
    list(PromptSession(model, blocks, WINDOW, store=store).prefetch(0, [5]))
    window, volume = WINDOW, blocks
    if change == "voxel":
        data = blocks.data.copy()
        data[5, 0, 0] = 1
        volume = replace(blocks, data=data)
    elif change == "window":
        window = (0.0, 101.0)
    elif change == "weight":
        with torch.no_grad():
            first = next(model.network.parameters())
            first[(0,) * first.ndim] += 1e-6
    elif change == "spacing":
        affine = blocks.affine.copy()
        affine[:, 2] *= 1.5
        volume = replace(blocks, affine=affine)
    else:
        model.dtype = torch.bfloat16
    list(PromptSession(model, volume, window, store=store).prefetch(0, [5]))
    assert (store.hits, store.misses) == (0, 2)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "bytes", "empty", "other"])
def test_a_damaged_entry_is_removed_with_a_warning_and_made_again(
    region_model: Any, blocks: Volume, tmp_path: Path, damage: str
) -> None:
    store = EmbeddingStore(tmp_path)
    list(PromptSession(region_model, blocks, WINDOW, store=store).prefetch(0, [5]))
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    half = len(whole) // 2
    damaged = {"cut": whole[:half], "bytes": whole[:200] + b"\xff" * 8 + whole[208:], "empty": b"", "other": b"hello"}
    path.write_bytes(damaged[damage])
    session = PromptSession(region_model, blocks, WINDOW, store=EmbeddingStore(tmp_path))
    with pytest.warns(UserWarning, match="damaged encoded slice was removed"):
        session.add_point((5, 8, 10))
    assert np.array_equal(session.labels[5] == 1, blocks.data[5] == 100)
    assert files(tmp_path) == [path]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(PromptSession(region_model, blocks, WINDOW, store=EmbeddingStore(tmp_path)).prefetch(0, [5]))


def test_the_least_recently_used_make_room_within_the_budget(region_model: Any, blocks: Volume, tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((6, 100, 100)).astype(np.float32)  # noise does not compress
    volume = Volume(data, np.eye(4))
    store = EmbeddingStore(tmp_path, budget_bytes=145_000)  # three slices of 40 kB, and a little
    for z in (0, 1, 2):
        list(PromptSession(region_model, volume, (0, 1), store=store).prefetch(0, [z]))
        for path in files(tmp_path):
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
    list(PromptSession(region_model, volume, (0, 1), store=store).prefetch(0, [0]))
    list(PromptSession(region_model, volume, (0, 1), store=store).prefetch(0, [3]))
    assert store.bytes_on_disk() <= 145_000
    region_model.encoded.clear()
    list(PromptSession(region_model, volume, (0, 1), store=store).prefetch(0, [0, 3]))
    assert region_model.encoded == []
    list(PromptSession(region_model, volume, (0, 1), store=store).prefetch(0, [1]))
    assert len(region_model.encoded) == 1
    store.clear()
    assert store.bytes_on_disk() == 0


CHILD = """
import sys
from pathlib import Path
import numpy as np
from region_model import RegionModel
from napari_medtransformer.prompting import EmbeddingStore, PromptSession
from napari_medtransformer.volumes import Volume
import torch
torch.manual_seed(0)
data = np.random.default_rng(0).random((40, 64, 64)).astype(np.float32)
store = EmbeddingStore(Path(sys.argv[1]), budget_bytes=300_000)
for _ in range(3):
    list(PromptSession(RegionModel(), Volume(data, np.eye(4)), (0, 1), 1, store=store).prefetch(0, range(40)))
"""


def test_two_processes_share_a_folder_that_is_too_small_for_both(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", CHILD, str(tmp_path)]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        _, said = child.communicate(timeout=200)
        assert (child.returncode, said) == (0, "")
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_is_told_and_the_click_is_answered(region_model: Any, blocks: Volume, tmp_path: Path) -> None:
    import resource
    import signal

    session = PromptSession(region_model, blocks, WINDOW, store=EmbeddingStore(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.warns(UserWarning, match="was not kept in"):
            session.add_point((5, 8, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert np.array_equal(session.labels[5] == 1, blocks.data[5] == 100)
    assert files(tmp_path) == []


def test_neighbours_are_encoded_outwards_from_the_slice_that_is_looked_at(region_model: Any) -> None:
    volume = Volume(np.arange(9, dtype=np.float32)[:, None, None] * np.ones((1, 6, 6), np.float32), np.eye(4))
    session = PromptSession(region_model, volume, (0, 9))
    seen: list[list[int]] = []
    for _ in session.prefetch_around(0, 3):
        seen.append([z for z in range(9) if session.is_encoded(0, z)])
    assert seen[1] == [3]
    assert seen[3] == [2, 3, 4]
    assert seen[-1] == list(range(9))
    small = PromptSession(region_model, volume, (0, 9), embeddings_bytes=4 * 6 * 6 * 4)
    steps = list(small.prefetch_around(0, 3))
    assert sum(small.is_encoded(0, z) for z in range(9)) == 4
    assert small.is_encoded(0, 3)
    assert "memory" in steps[-1].message

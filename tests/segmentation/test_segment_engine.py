"""What a segmentation does beside labels: air, memory, leaving, uncertainty, planes, doubts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from automatic_models import Threshold, make_card, make_model, swin_network
from torch import Tensor, nn

import napari_medtransformer as nmt
from napari_medtransformer.errors import InvalidOption, OutOfMemory, UnsupportedModel
from napari_medtransformer.progress import Partial, Progress, Result
from napari_medtransformer.segmentation import Segmentation, volume_logits
from napari_medtransformer.segmentation.plausibility import doubts
from napari_medtransformer.segmentation.region import values_within
from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.lazy import LazyArray


def run(model, volume, **options) -> tuple[Segmentation, list[Progress], list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        steps = list(nmt.segment_steps(model, volume, **options))
    assert isinstance(steps[-1], Result)
    ours = [str(w.message) for w in caught if w.category is UserWarning]
    return steps[-1].value, [step for step in steps if isinstance(step, Progress)], ours


def test_windows_of_air_are_left_out_and_that_is_said() -> None:
    data = np.full((48, 48, 48), -1000, np.int16)
    data[4:14, 4:14, 4:14] = 60
    volume = Volume.from_array(data, modality="CT")
    seen: list[int] = []

    class Counting(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    with_air = make_model(Counting(), make_card((16, 16, 16), values=(1,), clip=(-1000, 1000)))
    air_out = make_model(Counting(), make_card((16, 16, 16), values=(1,), clip=(-1000, 1000), air_below=-900))
    everything, _, _ = run(with_air, volume, overlap=0)
    windows = sum(seen)
    seen.clear()
    found, progress, _ = run(air_out, volume, overlap=0)
    assert (windows, sum(seen), found.windows, found.skipped) == (27, 1, 27, 26)
    assert progress[-1].message == "26 of 27 windows hold nothing but air and were left out."
    assert progress[-1].message in found.messages
    np.testing.assert_array_equal(found.labels, everything.labels)
    assert (found.labels == 1).sum() == 1000
    again, _, _ = run(air_out, volume, overlap=0, skip_air=False)
    assert again.skipped == 0


def test_air_alone_is_background_without_a_single_pass() -> None:
    volume = Volume.from_array(np.full((20, 20, 20), -1000.0) + np.arange(20), modality="CT")
    model = make_model(Threshold(), make_card((16, 16, 16), values=(1,), clip=(-1000, 1000), air_below=-900))
    found, _, _ = run(model, volume, uncertainty=True)
    assert not found.labels.any()
    assert found.skipped == found.windows
    assert found.entropy.max() < 0.1


class Greedy(nn.Module):
    """A network for a device with memory for so many voxels at once: its refusal is torch's own error."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.inner = Threshold()
        self.refused: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > self.most:
            self.refused.append(tuple(x.shape))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(x)


def test_out_of_memory_makes_batches_smaller_and_goes_on(threshold_model, noise) -> None:
    network = Greedy(most=3 * 16**3)
    card = make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0))
    found, progress, said = run(make_model(network, card), noise, batch=8)
    assert [shape[0] for shape in network.refused] == [8, 4]  # later batches begin at what fitted
    assert said == ["memory ran out with 8 windows at once; going on with 4",
                    "memory ran out with 4 windows at once; going on with 2"]  # fmt: skip
    assert set(said) <= {step.message for step in progress} & set(found.messages)
    np.testing.assert_array_equal(found.labels, nmt.segment(threshold_model(), noise))


def test_out_of_memory_with_one_window_takes_smaller_windows(threshold_model, noise) -> None:
    network = Greedy(most=12**3)
    model = make_model(network, make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    found, _, said = run(model, noise, batch=1)
    assert len(said) == 1
    assert "Starting again with windows of 8 × 8 × 8" in said[0]
    np.testing.assert_array_equal(found.labels, nmt.segment(threshold_model(), noise))


def test_when_nothing_fits_the_error_says_what_to_do(noise) -> None:
    model = make_model(Greedy(most=10), make_card((16, 16, 16), values=(1,)))
    with pytest.raises(OutOfMemory, match="choose a region"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nmt.segment(model, noise)


def test_a_whole_volume_that_cannot_fit_is_not_even_tried(threshold_model, noise) -> None:
    """An estimate a million times the memory there is: the window of the card is taken instead."""
    model = threshold_model(memory_bytes=10**15)
    found, _, said = run(model, noise, whole=True)
    assert len(said) == 1
    assert "GB are free" in said[0]
    assert "windows of 16 × 16 × 16" in said[0]
    assert found.windows > 1


_REAL_EXHAUSTION = """
import resource, sys, warnings
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
import napari_medtransformer as nmt
from automatic_models import make_card, make_model, swin_network
from napari_medtransformer.volumes import Volume
torch.set_num_threads(1)
network = swin_network(window=(16, 16, 16))
model = make_model(network, make_card((16, 16, 16), memory_bytes=1))
volume = Volume.from_array(np.random.default_rng(0).normal(size=(16, 16, 4800)).astype(np.float32))
nmt.segment(model, volume, region=((0, 0, 0), (16, 16, 16)))
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (224 << 20), -1))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    labels = nmt.segment(model, volume, batch=300, overlap=0)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
expected = nmt.segment(model, volume, batch=16, overlap=0)
print(any("memory ran out with 300 windows" in str(w.message) for w in caught), (labels == expected).mean() > 0.999)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_memory_that_really_runs_out_is_survived() -> None:
    from pathlib import Path

    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", _REAL_EXHAUSTION, here],
        capture_output=True,
        text=True,
        timeout=280,
        # the stacks and arenas of more threads would take the little address space that is left
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        check=False,
    )
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]


class Slow(nn.Module):
    """Many layers that take a twentieth of a second each: ten seconds a window, as large networks on small machines."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[Nap() for _ in range(200)])
        self.answer = Threshold()

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.layers(x))


class Nap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.05)
        return x


def test_leaving_in_the_middle_of_a_window_takes_less_than_two_seconds(noise) -> None:
    model = make_model(Slow(), make_card((16, 16, 16), values=(1,)))
    steps = nmt.segment_steps(model, noise)
    begun = time.perf_counter()
    for _ in range(4):  # heartbeats while the first window runs
        assert isinstance(next(steps), Progress)
    assert time.perf_counter() - begun < 2
    threads = threading.active_count()
    begun = time.perf_counter()
    steps.close()
    assert time.perf_counter() - begun < 2
    assert threading.active_count() == threads - 1
    hooks = [module for module in model.network.modules() if module._forward_pre_hooks]
    assert not hooks


def test_what_was_done_before_leaving_was_handed_out(threshold_model, noise) -> None:
    steps = nmt.segment_steps(threshold_model(), noise)
    slab = next(step.value for step in steps if isinstance(step, Partial))
    steps.close()
    whole = nmt.segment(threshold_model(), noise)
    np.testing.assert_array_equal(slab.labels, whole[tuple(slice(a, b) for a, b in zip(slab.start, slab.stop))])


def test_the_network_is_left_as_it_was(swin_model, noise) -> None:
    before = {name: (p.clone(), p.stride()) for name, p in swin_model.network.state_dict().items()}
    nmt.segment(swin_model, noise, overlap=0)
    for name, value in swin_model.network.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.stride() == before[name][1]


def test_entropy_is_that_of_the_logits(swin_model, noise) -> None:
    found, _, _ = run(swin_model, noise, uncertainty=True)
    logits = torch.from_numpy(volume_logits(swin_model, noise)).double()
    expected = torch.distributions.Categorical(logits=logits.movedim(0, -1)).entropy().numpy()
    np.testing.assert_allclose(found.entropy, expected, atol=1e-4)
    assert found.disagreement is None
    assert found.entropy.max() <= np.log(3) + 1e-5


def test_disagreement_is_the_share_of_mirrored_passes_that_say_something_else(swin_model) -> None:
    volume = Volume.from_array(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    found, _, _ = run(swin_model, volume, mirror=(0, 2), uncertainty=True)
    passes = []
    for flips in [(), (0,), (2,), (0, 2)]:
        turned = Volume.from_array(np.flip(volume.data, flips).copy())
        passes.append(np.flip(volume_logits(swin_model, turned), [axis + 1 for axis in flips]))
    mean = np.mean(passes, axis=0).argmax(0)
    expected = np.mean([one.argmax(0) != mean for one in passes], axis=0)
    assert expected.max() > 0
    assert (np.abs(found.disagreement - expected) > 1e-5).mean() < 1e-3  # but for ties
    np.testing.assert_array_equal(found.labels, mean.astype(np.uint8))


class InPlane(nn.Module):
    """A 2D network that answers for slices: what is above 0.5 after a blur along the rows alone."""

    def forward(self, x: Tensor) -> Tensor:
        blurred = (x + x.roll(1, -1) + x.roll(-1, -1)) / 3 - 0.5
        return torch.cat([-blurred, blurred], dim=1)


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_a_2d_model_sees_slices_of_the_plane_asked_for(plane: int) -> None:
    data = np.random.default_rng(0).random((10, 12, 14)).astype(np.float32)
    size = [n for axis, n in enumerate(data.shape) if axis != plane]
    model = make_model(InPlane(), make_card(tuple(size), values=(1,), clip=(0.0, 1.0)))
    model.logits = lambda x: model.network(x)  # type: ignore[method-assign]
    labels = nmt.segment(model, Volume.from_array(data), plane=plane)
    moved = np.moveaxis(data, plane, 0)
    expected = (moved + np.roll(moved, 1, -1) + np.roll(moved, -1, -1)) / 3 > 0.5
    assert (np.moveaxis(labels, plane, 0) == expected).mean() > 0.999


def test_three_planes_vote() -> None:
    data = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    model = make_model(InPlane(), make_card((12, 12), values=(1,), clip=(0.0, 1.0)))
    model.logits = lambda x: model.network(x)  # type: ignore[method-assign]
    volume = Volume.from_array(data)
    votes = sum(nmt.segment(model, volume, plane=plane).astype(int) for plane in (0, 1, 2))
    found, _, _ = run(model, volume, plane="all", uncertainty=True)
    np.testing.assert_array_equal(found.labels, votes >= 2)
    assert found.entropy.shape == volume.shape


def test_a_probe_sees_where_every_window_lies(swin_model, noise) -> None:
    """A listener gets each window's placement before the network runs, in the caller's thread."""
    placements, threads = [], set()

    def listen(placement) -> None:
        placements.append(placement)
        threads.add(threading.get_ident())

    expected = nmt.segment(swin_model, noise, overlap=0)
    swin_model.on_encode.append(listen)
    labels = nmt.segment(swin_model, noise, overlap=0)
    np.testing.assert_array_equal(labels, expected)
    assert threads == {threading.get_ident()}
    assert len(placements) == 2 * 2 * 3
    assert {one.start for one in placements} == {(z, y, x) for z in (0, 14) for y in (0, 10) for x in (0, 16, 21)}
    assert placements[0].native_shape == noise.shape
    with pytest.raises(InvalidOption, match="probe"):
        nmt.segment(swin_model, noise, mirror=(0,))


def test_label_values_are_the_cards() -> None:
    model = make_model(Threshold(classes=4), make_card((16, 16, 16), values=(7, 300, 2), clip=(0.0, 1.0)))
    labels = nmt.segment(model, Volume.from_array(np.eye(16, dtype=np.float32)[None].repeat(16, 0)))
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == {0, 7}


@pytest.mark.parametrize(
    "options, words",
    [
        ({"overlap": 1.0}, "overlap"),
        ({"weights": "flat"}, "gaussian"),
        ({"mirror": (3,)}, "mirrored"),
        ({"window": (17, 16, 16)}, "multiples of 8"),
        ({"window": (16, 16, 16), "whole": True}, "choose one"),
        ({"batch": 0}, "batch"),
        ({"plane": 4}, "plane"),
        ({"dtype": "int8"}, "float32"),
        ({"region": ((0, 0, 0), (0, 5, 5))}, "beyond start"),
        ({"region": ((0, 0, 0), (99, 5, 5))}, "leaves the volume"),
    ],
)
def test_options_that_make_no_sense_are_refused(swin_model, noise, options, words) -> None:
    with pytest.raises(InvalidOption, match=words):
        nmt.segment(swin_model, noise, **options)


def test_a_model_that_waits_for_clicks_is_refused(noise) -> None:
    model = nmt.load_model("medt-click-tiny", weights="random", device="cpu")
    with pytest.raises(UnsupportedModel, match="automatic"):
        nmt.segment(model, noise)


def ct(shape=(64, 64, 64), spacing=(1.5, 1.5, 1.5), modality="CT") -> Volume:
    rng = np.random.default_rng(0)
    data = np.where(rng.random(shape) < 0.4, -1000, rng.normal(40, 30, shape)).astype(np.int16)
    return Volume.from_array(data, spacing, modality)


CT_CARD = make_card((64, 64, 64), spacing_mm=(1.5, 1.5, 1.5), modalities=("CT",), extent_mm=(400, 500, 500))


@pytest.mark.parametrize(
    "volume, words",
    [
        (ct(), None),
        (ct(modality="MR"), "this is MR"),
        (Volume.from_array(np.random.default_rng(0).random((64, 64, 64)), (1.5, 1.5, 1.5)), "Hounsfield"),
        (ct(spacing=(8, 1.5, 1.5)), "far from the 1.5"),
        (ct(shape=(10, 64, 64)), "much smaller"),
        (ct(shape=(64, 64, 640)), "choose a region"),
        (Volume.from_array(np.zeros((64, 64, 64)), (1.5, 1.5, 1.5), "CT"), "no image"),
    ],
)
def test_a_volume_unlike_the_cards_is_doubted(volume: Volume, words: str | None) -> None:
    found = doubts(volume, CT_CARD)
    assert len(found) == (0 if words is None else 1), found
    if words is not None:
        assert words in found[0]


def test_doubts_are_about_the_region_that_is_asked_for() -> None:
    large = ct(shape=(64, 64, 640))
    assert "choose a region" in doubts(large, CT_CARD)[0]
    assert doubts(large, CT_CARD, ((0, 0, 200), (64, 64, 264))) == []
    assert "much smaller" in doubts(ct(), CT_CARD, ((0, 0, 0), (64, 10, 64)))[0]


def test_a_segmentation_of_a_region_doubts_the_region(threshold_model) -> None:
    volume = Volume.from_array(np.random.default_rng(0).random((16, 16, 64)).astype(np.float32))
    small, large = ((0, 0, 8), (16, 16, 24)), ((0, 0, 0), (16, 16, 40))
    model = threshold_model(spacing_mm=(1.0, 1.0, 1.0), extent_mm=(16.0, 16.0, 20.0))
    assert run(model, volume, region=small)[2] == []
    assert "much larger" in run(model, volume, region=large)[2][0]


def test_a_region_of_a_file_is_looked_at_without_reading_all_of_it() -> None:
    read = []

    class Counted:
        shape, dtype, blocks = (400, 200, 200), np.dtype(np.int16), (1, 200, 200)

        def read(self, selection) -> np.ndarray:
            sizes = [len(range(*part.indices(n))) for part, n in zip(selection, self.shape)]
            read.append(int(np.prod(sizes)))
            return np.full(sizes, 7, np.int16)

    values = values_within(LazyArray(Counted()), ((0, 0, 0), (400, 200, 200)))
    assert set(values.ravel()) == {7}
    assert sum(read) < 400 * 200 * 200 / 4
    some = np.arange(27).reshape(3, 3, 3)
    np.testing.assert_array_equal(values_within(some, ((1, 0, 0), (3, 3, 2))), some[1:, :, :2])


def test_doubts_are_said_before_the_first_window(threshold_model) -> None:
    volume = Volume.from_array(np.random.default_rng(0).random((16, 16, 16)), modality="MR")
    found, progress, said = run(threshold_model(modalities=("CT",)), volume)
    assert "this is MR" in said[0]
    assert progress[0].message == said[0] == found.messages[0]
    assert progress[0].done == 0


def compile_with(backend, monkeypatch) -> None:
    """torch's tracing with another backend than its C++ compiler, which takes minutes."""
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: original(self, backend=backend))


def test_a_compiled_network_says_the_same(noise, monkeypatch) -> None:
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_with(backend, monkeypatch)
    model = make_model(Threshold(), make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    plain = nmt.segment(model, noise)
    found, _, said = run(model, noise, compile=True)
    assert graphs
    assert said == []
    np.testing.assert_array_equal(found.labels, plain)
    assert model.network._compiled_call_impl is None


def test_a_network_that_cannot_be_compiled_runs_as_it_is(noise, monkeypatch) -> None:
    def backend(graph, inputs):
        raise RuntimeError("no C++ compiler")

    compile_with(backend, monkeypatch)
    model = make_model(Threshold(), make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    plain = nmt.segment(model, noise)
    found, _, said = run(model, noise, compile=True)
    assert "torch.compile failed" in said[0]
    assert "no C++ compiler" in said[0]
    np.testing.assert_array_equal(found.labels, plain)


def test_nothing_is_left_of_a_seeded_network() -> None:
    """Two networks of one seed are one network: what other tests rely on."""
    first, second = (swin_network(3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)

"""What a segmentation does beside labels: air, leaving, uncertainty, planes, probes, compiling."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from automatic_models import Threshold, make_card, make_model, swin_network
from segmentation_run import run_segmentation
from torch import Tensor, nn

import napari_medtransformer as nmt
from napari_medtransformer.errors import InvalidOption, UnsupportedModel
from napari_medtransformer.progress import Partial, Progress
from napari_medtransformer.segmentation import volume_logits
from napari_medtransformer.volumes import Volume


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
    everything, _, _ = run_segmentation(with_air, volume, overlap=0)
    windows = sum(seen)
    seen.clear()
    found, progress, _ = run_segmentation(air_out, volume, overlap=0)
    assert (windows, sum(seen), found.windows, found.skipped) == (27, 1, 27, 26)
    assert progress[-1].message == "26 of 27 windows hold nothing but air and were left out."
    assert progress[-1].message in found.messages
    np.testing.assert_array_equal(found.labels, everything.labels)
    assert (found.labels == 1).sum() == 1000
    again, _, _ = run_segmentation(air_out, volume, overlap=0, skip_air=False)
    assert again.skipped == 0


def test_air_alone_is_background_without_a_single_pass() -> None:
    volume = Volume.from_array(np.full((20, 20, 20), -1000.0) + np.arange(20), modality="CT")
    model = make_model(Threshold(), make_card((16, 16, 16), values=(1,), clip=(-1000, 1000), air_below=-900))
    found, _, _ = run_segmentation(model, volume, uncertainty=True)
    assert not found.labels.any()
    assert found.skipped == found.windows
    assert found.entropy.max() < 0.1


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


@pytest.mark.alone
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


class Long(nn.Module):
    """One layer that takes as long as somebody wants: the convolution at full resolution of a large network."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Held()
        self.answer = Threshold()

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.layer(x))


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.begun, self.over = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.begun.set()
        assert self.over.wait(60)
        return x


@pytest.mark.alone
@pytest.mark.parametrize("compiled", [False, True])
def test_leaving_in_the_middle_of_a_long_layer_does_not_wait_for_it(noise, compiled, monkeypatch) -> None:
    compile_with("eager", monkeypatch)  # the compiled network is this one, and no layer looks up
    model = make_model(Long(), make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    layer = model.network.layer
    steps = nmt.segment_steps(model, noise, batch=1, compile=compiled)
    assert isinstance(next(steps), Progress)
    assert layer.begun.wait(60)
    assert ("compiling" in next(steps).message) == compiled  # a heartbeat: nothing else can come from a held layer
    runner = next(thread for thread in threading.enumerate() if thread.name.startswith("segment"))
    begun = time.perf_counter()
    steps.close()
    assert time.perf_counter() - begun < 2
    assert runner.is_alive()
    layer.over.set()
    runner.join(60)
    assert not runner.is_alive()
    assert not [module for module in model.network.modules() if module._forward_pre_hooks]
    assert model.network._compiled_call_impl is None
    threshold = make_model(Threshold(), make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    np.testing.assert_array_equal(nmt.segment(model, noise), nmt.segment(threshold, noise))


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
    found, _, _ = run_segmentation(swin_model, noise, uncertainty=True)
    logits = torch.from_numpy(volume_logits(swin_model, noise)).double()
    expected = torch.distributions.Categorical(logits=logits.movedim(0, -1)).entropy().numpy()
    np.testing.assert_allclose(found.entropy, expected, atol=1e-4)
    assert found.disagreement is None
    assert found.entropy.max() <= np.log(3) + 1e-5


def test_disagreement_is_the_share_of_mirrored_passes_that_say_something_else(swin_model) -> None:
    volume = Volume.from_array(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    found, _, _ = run_segmentation(swin_model, volume, mirror=(0, 2), uncertainty=True)
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
    found, _, _ = run_segmentation(model, volume, plane="all", uncertainty=True)
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
        ({"overlap": "a"}, "a number"),
        ({"mirror": 1}, "whole numbers"),
        ({"batch": 1.5}, "whole numbers"),
        ({"window": 16}, "whole numbers"),
        ({"window": (16.0, 16, 16)}, "whole numbers"),
        ({"region": 5}, "whole numbers"),
        ({"region": ((0.5, 0, 0), (5, 5, 5))}, "whole numbers"),
    ],
)
def test_options_that_make_no_sense_are_refused(swin_model, noise, options, words) -> None:
    with pytest.raises(InvalidOption, match=words):
        nmt.segment(swin_model, noise, **options)


@pytest.mark.parametrize("model", [None, "medt-hippocampus", nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(model, noise) -> None:
    with pytest.raises(UnsupportedModel, match="no loaded model"):
        nmt.segment(model, noise)


def test_a_model_that_waits_for_clicks_is_refused(noise) -> None:
    model = nmt.load_model("medt-click-tiny", weights="random", device="cpu")
    with pytest.raises(UnsupportedModel, match="automatic"):
        nmt.segment(model, noise)


def compile_with(backend, monkeypatch) -> None:
    """torch's tracing with another backend than its C++ compiler, which takes minutes."""
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: original(self, backend=backend, **options))


def test_a_compiled_network_says_the_same(noise, monkeypatch) -> None:
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_with(backend, monkeypatch)
    model = make_model(Threshold(), make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    plain = nmt.segment(model, noise)
    found, _, said = run_segmentation(model, noise, compile=True)
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
    found, _, said = run_segmentation(model, noise, compile=True)
    assert "torch.compile failed" in said[0]
    assert "no C++ compiler" in said[0]
    np.testing.assert_array_equal(found.labels, plain)


def test_nothing_is_left_of_a_seeded_network() -> None:
    """Two networks of one seed are one network: what other tests rely on."""
    first, second = (swin_network(3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)

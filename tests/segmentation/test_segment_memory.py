"""When memory runs out: smaller batches, smaller windows, a clear error; and limits that are real."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from automatic_models import Threshold, make_card, make_model
from segmentation_run import run_segmentation
from torch import Tensor, nn

import napari_medtransformer as nmt
from napari_medtransformer.errors import OutOfMemory


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
    found, progress, said = run_segmentation(make_model(network, card), noise, batch=8)
    assert [shape[0] for shape in network.refused] == [8, 4]  # later batches begin at what fitted
    assert said == ["memory ran out with 8 windows at once; going on with 4",
                    "memory ran out with 4 windows at once; going on with 2"]  # fmt: skip
    assert set(said) <= {step.message for step in progress} & set(found.messages)
    np.testing.assert_array_equal(found.labels, nmt.segment(threshold_model(), noise))


def test_out_of_memory_with_one_window_takes_smaller_windows(threshold_model, noise) -> None:
    network = Greedy(most=12**3)
    model = make_model(network, make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    found, _, said = run_segmentation(model, noise, batch=1)
    assert len(said) == 1
    assert "Starting again with windows of 8 × 8 × 8" in said[0]
    np.testing.assert_array_equal(found.labels, nmt.segment(threshold_model(), noise))


def test_smaller_windows_leave_a_norm_more_than_one_number(noise) -> None:
    network = Greedy(most=12**3)
    network.norm = nn.InstanceNorm3d(1)  # as in SwinUNETR, whose coarsest layer has a voxel per multiple
    model = make_model(network, make_card((16, 16, 16), values=(1,), clip=(0.0, 1.0)))
    _, _, said = run_segmentation(model, noise, batch=1)
    assert "Starting again with windows of 16 × 8 × 8" in said[0]


def test_when_nothing_fits_the_error_says_what_to_do(noise) -> None:
    model = make_model(Greedy(most=10), make_card((16, 16, 16), values=(1,)))
    with pytest.raises(OutOfMemory, match="choose a region"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nmt.segment(model, noise)


def test_a_whole_volume_that_cannot_fit_is_not_even_tried(threshold_model, noise) -> None:
    """An estimate a million times the memory there is: the window of the card is taken instead."""
    model = threshold_model(memory_bytes=10**15)
    found, _, said = run_segmentation(model, noise, whole=True)
    assert len(said) == 1
    assert "GB are free" in said[0]
    assert "windows of 16 × 16 × 16" in said[0]
    assert found.windows > 1


_REAL_EXHAUSTION = """
import resource, sys, warnings
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
    done = subprocess.run(
        [sys.executable, "-c", _REAL_EXHAUSTION],
        capture_output=True,
        text=True,
        timeout=280,
        # the stacks and arenas of more threads would take the little address space that is left
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        check=False,
    )
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]

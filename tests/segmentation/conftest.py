"""Automatic models and volumes for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from automatic_models import Threshold, make_card, make_model, swin_network, unetr_network

from napari_medtransformer.models.window_model import WindowModel
from napari_medtransformer.volumes import Volume


@pytest.fixture
def threshold_model() -> Callable[..., WindowModel]:
    """A model that labels 1 what is above 0.5, on intensities as they are; keywords as make_card's."""

    def make(window: tuple[int, ...] = (16, 16, 16), **card: Any) -> WindowModel:
        return make_model(Threshold(), make_card(window, values=(1,), clip=(0.0, 1.0), **card))

    return make


@pytest.fixture
def swin_model() -> WindowModel:
    """A small SwinUNETR with random weights and windows of 16³."""
    return make_model(swin_network(), make_card((16, 16, 16)))


@pytest.fixture
def unetr_model() -> WindowModel:
    """A small UNETR with random weights and windows of 16³."""
    return make_model(unetr_network(), make_card((16, 16, 16)))


@pytest.fixture
def noise() -> Volume:
    """Smooth noise, 30 × 26 × 37 voxels of 1 mm."""
    from scipy.ndimage import gaussian_filter

    data = gaussian_filter(np.random.default_rng(1).normal(size=(30, 26, 37)), 1.5)
    return Volume.from_array((1000 * data).astype(np.int16))

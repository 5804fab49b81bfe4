"""A promptable model that is right by construction, and volumes on which everybody can see what is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from region_model import RegionModel

from napari_medtransformer.models.click import ClickModel
from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.volumes import Volume


@pytest.fixture(scope="session")
def make_region_model() -> Callable[[], RegionModel]:
    """Makes a new one for each example of a property test."""
    return RegionModel


@pytest.fixture
def region_model() -> RegionModel:
    return RegionModel()


@pytest.fixture(scope="session")
def click_model() -> ClickModel:
    """The bundled architecture, small, with random weights."""
    torch.manual_seed(0)
    config = ClickConfig(input_size=64, stem_channels=(8, 16, 16), width=32, depth=2, heads=2, decoder_width=32)
    return ClickModel(find_card("medt-click-tiny"), ClickNetwork(config), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def blocks() -> Volume:
    """A cuboid of 100 at z 3..8, y 4..11, x 5..14 and one of 60 beside it at x 18..23, in 0; voxels of 2 × 1 × 1 mm."""
    data = np.zeros((12, 20, 26), np.int16)
    data[3:9, 4:12, 5:15] = 100
    data[3:9, 4:12, 18:24] = 60
    return Volume(data, np.array([[0, 0, -1, 0], [0, -1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]]))

"""Sample data opens from napari's menu: registered, on one grid, with named labels, licences beside the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManager

from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.sample_data import sample_path

PLUGIN = "napari-medtransformer"
KEYS = ["ct", "ct_with_organs", "mr", "mr_with_organs", "hippocampus"]


def test_the_manifest_lists_every_sample() -> None:
    manager = PluginManager()
    manager.discover()
    contributions = manager.get_manifest(PLUGIN).contributions
    assert [sample.key for sample in contributions.sample_data] == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_a_sample_opens_with_all_its_layers_on_one_grid(make_napari_viewer, key: str) -> None:
    viewer = make_napari_viewer()
    layers = viewer.open_sample(PLUGIN, key)
    image = layers[0]
    assert isinstance(image.metadata["medt_volume"], Volume)
    assert image.data.min() < image.contrast_limits[0] < image.contrast_limits[1] < image.data.max()
    for layer in layers[1:]:
        assert layer._type_string == "labels"
        np.testing.assert_allclose(layer.extent.world, image.extent.world, atol=1e-4)
        for number in np.unique(layer.data)[1:]:
            assert layer.features.loc[layer.features["index"] == number, "name"].item()


def test_the_status_bar_names_the_liver(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    _, organs = viewer.open_sample(PLUGIN, "ct_with_organs")
    z, y, x = np.argwhere(organs.data == 5)[0]
    world = organs.data_to_world((z, y, x))
    viewer.dims.set_point(range(3), world)
    status = organs.get_status(world, view_direction=None, dims_displayed=[1, 2], world=True)
    assert "liver" in status["coordinates"]


def test_every_sample_file_has_its_licence_beside_it() -> None:
    folder = sample_path("LICENSES.md").parent
    text = (folder / "LICENSES.md").read_text(encoding="utf-8")
    files = [path.name for path in Path(folder).iterdir() if path.name != "LICENSES.md"]
    assert len(files) == 9
    for name in files:
        assert f"`{name}`" in text

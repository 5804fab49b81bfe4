"""Colours of labels are napari's own, and found without a pause."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_medtransformer.plugin.label_colours import label_colours

COLOURS = {1: "#ff0000", 7: (0.0, 1.0, 0.0, 0.5), 300: "cyan", 65_535: "white"}


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32])
def test_every_label_looks_as_with_naparis_own_class(dtype: type[np.integer]) -> None:
    known = np.iinfo(dtype)
    colours = {number: colour for number, colour in COLOURS.items() if number <= known.max}
    values = np.array([0, 1, 2, 7, 8, 100, *([299, 300, known.max] if known.bits > 8 else [])], dtype)
    theirs = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **colours})
    np.testing.assert_array_equal(label_colours(colours).map(values), theirs.map(values))


def test_the_table_for_the_canvas_is_naparis_own() -> None:
    theirs = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **COLOURS})
    ours, dtype = label_colours(COLOURS), np.dtype(np.uint16)
    np.testing.assert_array_equal(ours._get_mapping_from_cache(dtype), theirs._get_mapping_from_cache(dtype))


def test_a_colour_changes_without_asking_for_each_label_by_itself(monkeypatch) -> None:
    def one_by_one(*_: object) -> None:
        raise AssertionError("65,536 labels were looked up in Python")

    monkeypatch.setattr(DirectLabelColormap, "_map_precast", one_by_one)
    layer = Labels(np.zeros((4, 4), np.uint16), colormap=label_colours(COLOURS))
    layer.colormap._get_mapping_from_cache(np.dtype(np.uint16))


def test_a_layer_with_such_colours_can_be_copied() -> None:
    layer = Labels(np.eye(3, dtype=np.uint16), colormap=label_colours(COLOURS))
    data, state, kind = layer.as_layer_data_tuple()
    assert kind == "labels"
    again = copy.deepcopy(state["colormap"])
    np.testing.assert_array_equal(again.map(data), layer.colormap.map(data))
    np.testing.assert_array_equal(Labels(data, **state).colormap.map(data), layer.colormap.map(data))

"""Positional encodings as pictures, and masks without them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_medtransformer.attention.altered_positions import altered_positions
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.positions import (
    PositionTable,
    RelativeBias,
    RelativeVectors,
    find_positional_encodings,
    sinusoidal,
)
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import QueryOutOfGrid, UnsupportedModel
from napari_medtransformer.inspection import inspect_slice
from napari_medtransformer.inspection.ablation import change_labels
from napari_medtransformer.inspection.gallery import draw_positions, draw_relative_bias
from napari_medtransformer.inspection.position_views import AROUND, position_view, shown_encodings, tiled, views_of
from napari_medtransformer.inspection.positions import (
    bias_around,
    bias_pictures,
    channels,
    encodings_of,
    gram,
    masks_with_altered_positions,
    mosaic,
    similarity_heatmap,
)
from napari_medtransformer.models import load_model
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.volumes import Volume

CLICK = Prompts(np.array([[5.0, 9.0]], np.float32), np.array([1]))


@pytest.fixture(scope="module")
def inspection():
    model = load_model("medt-click-tiny", weights="random", device="cpu")
    data = np.random.default_rng(0).normal(size=(12, 20, 30)).astype(np.float32)
    return inspect_slice(model, Volume.from_array(data, (4.0, 1.5, 0.8), "MR"), 0, 3).with_prompts(CLICK)


def test_the_mosaic_has_a_tile_per_place_with_its_similarities_in_it():
    table = sinusoidal((4, 6), 16)
    picture = mosaic(table)
    assert picture.shape == (16, 36)
    for place in [(0, 0), (1, 4), (3, 5)]:
        tile = picture[4 * place[0] : 4 * place[0] + 4, 6 * place[1] : 6 * place[1] + 6]
        np.testing.assert_allclose(tile, table.similarity(place), atol=1e-6)


def test_large_tables_make_pictures_of_bounded_size():
    table = PositionTable("large", "learned", (64, 64), torch.randn(4096, 8))
    assert mosaic(table).shape == (16 * 32, 16 * 32)
    assert gram(table).shape == (1024, 1024)
    assert channels(table, 5).shape == (5, 64, 64)


def test_similarity_lies_on_the_image_where_its_places_do(inspection):
    table = encodings_of(inspection)[0]
    grid = inspection.site("encoder.0").query_grid
    heatmap = similarity_heatmap(table, grid, (6.0, 8.0))
    place = grid.grid_index(grid.token_of((6.0, 8.0)))
    np.testing.assert_array_equal(heatmap.values[0], table.similarity(place))
    assert np.unravel_index(heatmap.values[0].argmax(), grid.shape) == place


@pytest.mark.parametrize("alteration", ["zero", "shuffle"])
def test_an_encoding_is_altered_inside_and_whole_again_after(inspection, alteration):
    network = inspection.model.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for encoding in encodings_of(inspection):
        with altered_positions(network, encoding, alteration, seed=1):
            now = network.state_dict()
            changed = [name for name in before if not torch.equal(before[name], now[name])]
            assert changed == [encoding.name]
            if alteration == "zero":
                assert not now[encoding.name].any()
            else:
                np.testing.assert_allclose(
                    np.sort(now[encoding.name].ravel()), np.sort(before[encoding.name].ravel()), rtol=0
                )
        with pytest.raises(ZeroDivisionError), altered_positions(network, encoding, alteration):
            raise ZeroDivisionError
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_shuffling_moves_whole_places(inspection):
    encoding = encodings_of(inspection)[0]
    table = inspection.model.network.get_parameter(encoding.name)
    original = {tuple(v) for v in table[0].flatten(1).T.tolist()}
    with altered_positions(inspection.model.network, encoding, "shuffle", seed=3):
        assert {tuple(v) for v in table[0].flatten(1).T.tolist()} == original


def test_masks_without_positions_are_those_of_the_network_with_a_zeroed_table(inspection):
    encoding = encodings_of(inspection)[0]
    effect = masks_with_altered_positions(inspection, encoding, "zero", {7: CLICK})[7]
    other = load_model("medt-click-tiny", weights="random", device="cpu")
    with torch.no_grad():
        other.network.get_parameter(encoding.name).zero_()
    expected = other.decode(other.encode(inspection.image, inspection.spacing_mm), CLICK)
    whole = inspection.model.decode(inspection.embedding, CLICK)
    best = int(np.argmax(whole.scores))
    np.testing.assert_array_equal(effect.changed, expected.logits[best] > 0)
    np.testing.assert_array_equal(effect.whole, whole.logits[best] > 0)
    labels = change_labels([effect])
    np.testing.assert_array_equal(labels == 2, effect.whole & ~effect.changed)
    np.testing.assert_array_equal(labels == 3, ~effect.whole & effect.changed)


def test_an_encoding_of_another_network_is_refused(inspection):
    foreign = PositionTable("elsewhere", "learned", (2, 2), torch.zeros(4, 3))
    with (
        pytest.raises(UnsupportedModel, match="elsewhere"),
        altered_positions(inspection.model.network, foreign, "zero"),
    ):
        pass


def test_every_view_of_every_encoding_is_a_picture_within_its_limits(inspection):
    encodings = [
        *shown_encodings(inspection),
        RelativeVectors("rows", torch.randn(13, 8)),
        RelativeBias("window", torch.randn(3, 5, 5)),
    ]
    for encoding in encodings:
        for title in views_of(encoding):
            if title == AROUND:
                with pytest.raises(UnsupportedModel, match="no relative position"):
                    position_view(inspection, encoding, title, (6.0, 8.0))
                continue
            view = position_view(inspection, encoding, title, (6.0, 8.0))
            known = view.values[np.isfinite(view.values)]
            assert view.values.ndim == 2
            assert known.size
            assert view.limits[0] <= known.min() + 1e-6
            assert known.max() <= view.limits[1] + 1e-6
            assert view.explained


def test_a_bias_in_three_dimensions_lies_in_slices_side_by_side():
    values = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).reshape(2, 3, 5, 5)
    pictures = bias_pictures(RelativeBias("window", values))
    assert pictures.shape == (2, 5, 3 * 5 + 2)
    np.testing.assert_array_equal(pictures[1][:, 6:11], values[1, 1])
    assert np.isnan(pictures[:, :, [5, 11]]).all()


def test_tiles_leave_a_gap():
    picture = tiled(np.ones((3, 2, 2)), columns=2)
    assert picture.shape == (5, 5)
    assert np.isnan(picture[2]).all()
    assert np.nansum(picture) == 12


def test_figures_of_positions_say_what_they_show(inspection):
    table = encodings_of(inspection)[0]
    titles = views_of(table)[:2]
    figure = draw_positions([(t, position_view(inspection, table, t, (6.0, 8.0))) for t in titles], table, "a model")
    assert table.name in figure.texts[0].get_text().replace("\n", " ")
    bias = draw_relative_bias(RelativeBias("window", torch.randn(3, 3, 5, 5)), "a caption")
    assert [axis.get_title() for axis in bias.axes[:3]] == ["head 0", "head 1", "head 2"]


def test_the_bias_of_a_three_dimensional_swin_transformer_is_found_with_its_window():
    from monai.networks.nets.swin_unetr import WindowAttention

    network = torch.nn.ModuleList([WindowAttention(12, 3, (7, 7, 7))])
    found = [e for e in find_positional_encodings(network) if isinstance(e, RelativeBias)]
    assert {encoding.window for encoding in found} == {(7, 7, 7)}
    assert bias_pictures(found[0]).shape == (3, 13, 13 * 13 + 12)


def test_features_of_other_places_are_refused_on_a_grid(inspection):
    fourier = next(e for e in encodings_of(inspection) if isinstance(e, PositionTable) and e.kind == "fourier")
    grid = inspection.site("encoder.2").query_grid
    assert similarity_heatmap(fourier, grid, (6.0, 8.0)).values.shape == (1, *grid.shape)
    finer = TokenGrid(TokenLayout((8, 8), tuple(2 * n for n in grid.shape)), grid.placement)
    with pytest.raises(QueryOutOfGrid, match="not at these"):
        similarity_heatmap(fourier, finer, (6.0, 8.0))


def test_the_bias_of_a_shifted_window_is_the_learned_one():
    model = load_model("upernet-swin-t-ade20k", weights="random", device="cpu", dtype="float32")
    placement = InputPlacement((96, 160), (96, 160), (96, 160))
    with AttentionProbe(model) as probe:
        for listener in model.on_encode:
            listener(placement)
        model.logits(torch.randn(1, 3, 96, 160))
    site = probe.sites[-1].name
    found = bias_around(SimpleNamespace(captured=probe.captured), site, (90.0, 150.0))
    learned = probe.captured(site).call.bias
    assert learned.regions is not None
    assert np.abs(found.values).max() <= float(learned.table.abs().max())
    assert found.values.any()

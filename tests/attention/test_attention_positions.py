"""Positional encodings as the networks themselves use them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_medtransformer.attention.positions import (
    PositionTable,
    RelativeBias,
    RelativeVectors,
    find_positional_encodings,
    fourier_features,
    sinusoidal,
)
from napari_medtransformer.attention.relative import relative_table
from napari_medtransformer.errors import QueryOutOfGrid, UnsupportedModel


def test_sam_shows_its_table_its_relative_positions_and_its_fourier_features(small_sam):
    network = small_sam.network
    found = {e.name: e for e in find_positional_encodings(network, (8, 8))}
    table = found["vision_encoder.pos_embed"]
    assert (table.kind, table.grid) == ("learned", (8, 8))
    assert torch.equal(table.vectors.reshape(1, 8, 8, 32), network.vision_encoder.pos_embed)
    assert {name for name, e in found.items() if isinstance(e, RelativeVectors)} == {
        f"vision_encoder.layers.{i}.attn.rel_pos_{axis}" for i in range(3) for axis in "hw"
    }
    assert found["vision_encoder.layers.1.attn.rel_pos_h"].size == 8
    fourier = found["shared_image_embedding.positional_embedding"]
    expected = network.get_image_wide_positional_embeddings()[0].flatten(1).T
    assert torch.allclose(fourier.vectors, expected, atol=1e-5)


def test_swin_shows_a_bias_per_head_and_offset_as_the_network_adds_it():
    from monai.networks.nets.swin_unetr import WindowAttention

    attention = WindowAttention(8, 2, (2, 3, 4))
    nn.init.normal_(attention.relative_position_bias_table)
    (bias,) = find_positional_encodings(attention)
    assert isinstance(bias, RelativeBias)
    assert bias.window == (2, 3, 4)
    added = attention.relative_position_bias_table[attention.relative_position_index].permute(2, 0, 1)
    for token, place in enumerate(np.ndindex(2, 3, 4)):
        assert torch.equal(bias.around(place).flatten(1), added[:, token])
    with pytest.raises(QueryOutOfGrid, match="window"):
        bias.around((2, 0, 0))


@pytest.mark.parametrize(
    "tokens, grid, asked",
    [(49, (7, 7), None), (50, (7, 7), None), (27, (3, 3, 3), None), (24, (4, 6), (4, 6)), (23, (23,), None)],
)
def test_flat_tables_are_laid_out_on_their_grid(tokens, grid, asked):
    network = nn.Module()
    network.pos_embed = nn.Parameter(torch.randn(1, tokens, 5))
    (table,) = find_positional_encodings(network, asked)
    assert table.grid == grid
    assert torch.equal(table.vectors, network.pos_embed[0, tokens - table.vectors.shape[0] :])


def test_a_table_with_channels_first_is_read_as_one():
    network = nn.Module()
    network.position = nn.Parameter(torch.randn(1, 24, 4, 5))
    (table,) = find_positional_encodings(network)
    assert table.grid == (4, 5)
    assert torch.equal(table.vectors[1 * 5 + 3], network.position[0, :, 1, 3])


def test_similarity_is_the_cosine_with_every_place():
    table = PositionTable("t", "learned", (3, 4), torch.randn(12, 7))
    expected = nn.functional.cosine_similarity(table.vectors[1 * 4 + 2][None], table.vectors).reshape(3, 4)
    similarity = table.similarity((1, 2))
    assert torch.allclose(similarity, expected, atol=1e-6)
    assert similarity[1, 2] == pytest.approx(1)
    for outside in ((3, 0), (0, -1), (1,)):
        with pytest.raises(QueryOutOfGrid, match="no place"):
            table.similarity(outside)


def test_gram_is_p_times_its_transpose():
    table = PositionTable("t", "learned", (3, 4), torch.randn(12, 7))
    assert torch.allclose(table.gram(), table.vectors @ table.vectors.T)
    assert torch.allclose(table.gram(torch.tensor([5])), table.gram()[5:6], atol=1e-5)


@pytest.mark.parametrize("grid, wider", [((4, 4), (7, 9)), ((3, 3, 2), (5, 4, 6)), ((6,), (11,))])
def test_interpolation_reproduces_what_grows_linearly(grid, wider):
    def ramp(shape):
        places = [(torch.arange(n) + 0.5) / n for n in shape]
        return torch.cartesian_prod(*places).reshape(-1, len(shape))

    resized = PositionTable("t", "learned", grid, ramp(grid)).resized(wider)
    assert resized.grid == wider
    # at the borders there is nothing to interpolate between
    inside = ((ramp(wider) > 0.5 / min(grid)) & (ramp(wider) < 1 - 0.5 / min(grid))).all(dim=1)
    assert inside.any()
    assert torch.allclose(resized.vectors[inside], ramp(wider)[inside], atol=1e-6)
    with pytest.raises(UnsupportedModel):
        resized.resized((2,) * (len(grid) + 1))


def test_relative_vectors_resize_as_the_network_resizes_them():
    vectors = RelativeVectors("r", torch.randn(15, 6))
    table = relative_table(vectors.vectors, 5)
    resized = vectors.resized(5)
    assert resized.size == 5
    for query in range(5):
        for key in range(5):
            assert torch.allclose(table[query, key], resized.vectors[4 + query - key])
    assert vectors.similarity(-7)[0] == pytest.approx(1)
    with pytest.raises(QueryOutOfGrid, match="-7 to 7"):
        vectors.similarity(8)


def test_fourier_features_of_a_step_turn_by_the_matrix():
    matrix = torch.tensor([[1.0], [0.0]])  # x only
    features = fourier_features(matrix, (2, 4)).reshape(2, 4, 2)
    angle = 2 * torch.pi * torch.tensor([-0.75, -0.25, 0.25, 0.75])
    assert torch.allclose(features[0], torch.stack([angle.sin(), angle.cos()], -1), atol=1e-6)
    assert torch.equal(features[0], features[1])


def test_sinusoidal_positions_depend_on_distance_alone():
    table = sinusoidal((9, 9), 32)
    gram = table.gram().reshape(9, 9, 9, 9)
    assert torch.allclose(gram[0, 0, 2, 3], gram[4, 5, 6, 8], atol=1e-4)
    assert table.similarity((4, 4)).argmax() == 4 * 9 + 4
    with pytest.raises(UnsupportedModel, match="axes"):
        sinusoidal((3, 3), 30)

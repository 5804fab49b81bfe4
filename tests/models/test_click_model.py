"""The bundled model's adapter: prompts and masks lie where they belong, whatever the image's shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.models import click, click_layers
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.click import ClickModel, build
from napari_medtransformer.models.click_layers import Attention
from napari_medtransformer.models.click_network import (
    CLICK_RADIUS,
    ClickConfig,
    ClickNetwork,
    ImageParts,
    PromptBatch,
    prompt_maps,
)
from napari_medtransformer.models.registry import find_card, load_model

SIZE = 128
NO_POINTS = (np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
SHAPES = [(128, 128), (512, 512), (300, 200), (50, 75), (100, 257)]


class DrawingNetwork(ClickNetwork):
    """Answers with what it was given: the prompts drawn on the input, or the image itself."""

    answer = "box"

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return images, images, images, images

    def image_parts(self, features: tuple[Tensor, ...]) -> ImageParts:
        return ImageParts(*features, *features[:2])

    def decode(
        self, features: tuple[Tensor, ...], prompts: PromptBatch, seen: ImageParts | None = None
    ) -> tuple[Tensor, Tensor]:
        maps = prompt_maps(prompts, self.config.input_size)
        image = torch.nn.functional.avg_pool2d(features[0], 2)
        drawn = {"box": maps[:, :1] - 0.5, "click": maps[:, 1:2], "mask": maps[:, 3:4], "image": image}[self.answer]
        return drawn, torch.ones(1, 1)


def drawing(answer: str) -> ClickModel:
    config = ClickConfig(input_size=SIZE, stem_channels=(8, 8, 8), width=16, depth=1, heads=2, decoder_width=16)
    network = DrawingNetwork(config)
    network.answer = answer
    return ClickModel(find_card("medt-click-tiny"), network, torch.device("cpu"), torch.float32)


def predict(
    model: ClickModel, image: np.ndarray, prompts: Prompts, pixel_size: tuple[float, float] = (1, 1)
) -> np.ndarray:
    logits = model.first_look(model.encode(image, pixel_size), prompts).logits
    assert logits.shape == (1, *image.shape)
    assert logits.dtype == np.float32
    answer: np.ndarray = logits[0]
    return answer


@pytest.mark.parametrize("pixel_size", [(1.0, 1.0), (5.0, 1.0), (0.3, 0.9)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_is_drawn_where_it_was_given(shape: tuple[int, int], pixel_size: tuple[float, float]) -> None:
    model = drawing("box")
    y0, x0, y1, x1 = shape[0] // 4, shape[1] // 5, shape[0] // 4 * 3, shape[1] // 2
    mask = predict(model, np.zeros(shape, np.float32), Prompts(*NO_POINTS, box=(y0, x0, y1, x1)), pixel_size) > 0
    rows, columns = (np.flatnonzero(mask.any(axis=a)) for a in (1, 0))
    # Half a mask pixel, which is two input pixels wide: that is as exact as the map can be.
    placement = model.placement(shape, pixel_size)
    tolerance = [n / r + 0.51 for n, r in zip(shape, placement.resized_shape, strict=True)]
    assert abs(rows[0] - y0) <= tolerance[0]
    assert abs(rows[-1] + 1 - y1) <= tolerance[0]
    assert abs(columns[0] - x0) <= tolerance[1]
    assert abs(columns[-1] + 1 - x1) <= tolerance[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_click_is_drawn_where_it_was_made(shape: tuple[int, int]) -> None:
    model = drawing("click")
    point = (shape[0] * 0.3, shape[1] * 0.6)
    prompts = Prompts(np.array([point], np.float32), np.array([1]))
    drawn = predict(model, np.zeros(shape, np.float32), prompts)
    scale = max(shape) / SIZE
    found = ndimage.center_of_mass(np.where(drawn > 0.2, drawn, 0))
    assert np.allclose(found, point, atol=0.5 * max(scale, 1))
    width = np.sqrt((drawn > np.exp(-0.5)).sum() / np.pi)
    assert width == pytest.approx(CLICK_RADIUS * scale, rel=0.2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_to_refine_comes_back_in_its_place(shape: tuple[int, int]) -> None:
    model = drawing("mask")
    y, x = np.ogrid[: shape[0], : shape[1]]
    mask = ((y - shape[0] * 0.6) / (0.3 * shape[0])) ** 2 + ((x - shape[1] * 0.4) / (0.3 * shape[1])) ** 2 < 1
    logits = np.where(mask, 6.0, -6.0).astype(np.float32)
    drawn = predict(model, np.zeros(shape, np.float32), Prompts(*NO_POINTS, mask_logits=logits)) > 0
    assert 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()) > 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_the_image_reaches_the_network_in_its_place(shape: tuple[int, int]) -> None:
    dice = np.random.default_rng(1)
    image = ndimage.zoom(dice.random((5, 5)), (shape[0] / 5, shape[1] / 5), order=1).astype(np.float32)[
        : shape[0], : shape[1]
    ]
    image = np.pad(image, [(0, n - m) for n, m in zip(shape, image.shape, strict=True)], mode="edge")
    seen = predict(drawing("image"), image, Prompts(*NO_POINTS))
    inner = np.s_[4:-4, 4:-4]
    assert np.abs(seen - image)[inner].max() < 0.12  # what a map of 64 pixels loses of these ramps


def test_listeners_learn_where_each_image_lies() -> None:
    model, heard = drawing("box"), list[InputPlacement]()
    model.on_encode.append(heard.append)
    model.encode(np.zeros((30, 60), np.float32))
    model.encode(np.zeros((30, 60), np.float32), (2.0, 1.0))
    assert heard == [
        InputPlacement((30, 60), (64, 128), (SIZE, SIZE)),
        InputPlacement((30, 60), (128, 128), (SIZE, SIZE)),
    ]


def test_what_prompts_share_is_worked_out_anew_for_another_image_and_for_other_weights() -> None:
    model, fresh = (load_model("medt-click-tiny", "random", "cpu") for _ in range(2))
    one, two = (np.random.default_rng(seed).random((64, 64)).astype(np.float32) for seed in (0, 1))
    prompts = Prompts(np.array([[30, 20]], np.float32), np.array([1]))
    embeddings = [model.encode(image) for image in (one, two)]
    for i in (0, 1, 0):
        expected = fresh.decode(fresh.encode((one, two)[i]), prompts)
        np.testing.assert_array_equal(model.decode(embeddings[i], prompts).logits, expected.logits)
    for changed in (model, fresh):
        with torch.no_grad():
            changed.network.get_parameter("decoder.skip2.weight").mul_(1.5)
    after = model.decode(embeddings[0], prompts).logits
    np.testing.assert_array_equal(after, fresh.decode(fresh.encode(one), prompts).logits)


def test_every_site_names_a_module_that_attends() -> None:
    model = load_model("medt-click-tiny", "random", "cpu")
    sites = model.attention_sites()
    assert [site.name for site in sites[:2]] == ["encoder.0", "encoder.1"]
    assert len({site.name for site in sites}) == len({site.module for site in sites}) == len(sites)
    attends = [name for name, module in model.network.named_modules() if isinstance(module, Attention)]
    assert [site.module for site in sites] == attends
    for site in sites:
        module = model.network.get_submodule(site.module)
        assert isinstance(module, Attention)
        assert module.heads == site.heads


@pytest.mark.parametrize(("set_of_instructions", "dtype"), [("avx512_bf16", torch.bfloat16), ("none", torch.float32)])
def test_a_decoder_multiplies_in_bfloat16_where_the_processor_does(
    monkeypatch: pytest.MonkeyPatch, set_of_instructions: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(click, "cpu_has", lambda name: name == set_of_instructions)
    model, seen = load_model("medt-click-tiny", "random", "cpu"), []
    layer = model.network.get_submodule("decoder.down8")
    layer.register_forward_pre_hook(lambda *_: seen.append(click_layers.convolution_dtype()))
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    answer = model.decode(model.encode(image), Prompts(np.array([[30, 20]], np.float32), np.array([1])))
    assert seen == [dtype]
    assert answer.logits.dtype == np.float32
    assert click_layers.convolution_dtype() == torch.float32


def test_no_candidate_for_a_box_falls_short_of_its_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(find_card("medt-click-tiny"), None, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    look = model._first_look

    def doubtful(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logits, scores = look(*given)
        return logits - logits.amax() - 3, scores

    monkeypatch.setattr(model, "_first_look", doubtful)
    image = np.random.default_rng(0).random((90, 120), np.float32)
    answer = model.decode(model.encode(image), Prompts(*NO_POINTS, box=(20.0, 30.0, 52.0, 78.0)))
    assert len(answer.logits) > 1
    for logits in answer.logits:
        inside = logits[20:52, 30:78] > 0
        assert all(rim.any() for rim in (inside[:2], inside[-2:], inside[:, :3], inside[:, -3:]))

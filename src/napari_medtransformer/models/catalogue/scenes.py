"""Cards of networks that label photographs of scenes: starting points for fine-tuning, and their published format."""

from __future__ import annotations

import colorsys
from dataclasses import replace

from napari_medtransformer.models.card import LabelInfo, ModelCard, WeightsSource
from napari_medtransformer.models.catalogue.common import HUGGING_FACE, MB, photograph_input

# The 150 classes of the MIT Scene Parsing Benchmark, ADE20K (Zhou et al. 2017), in its order.
_NAMES = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, "
    "table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, "
    "armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, "
    "chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, "
    "case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, "
    "book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, "
    "hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, "
    "dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, "
    "fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, "
    "minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, "
    "screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, "
    "monitor, bulletin board, shower, radiator, glass, clock, flag"
)
# hues a golden section apart: neighbours in the list differ well
_GOLDEN = 0.618034
_LABELS = tuple(
    LabelInfo(value, name, colorsys.hsv_to_rgb(value * _GOLDEN % 1, 0.65, 0.9))
    for value, name in enumerate(_NAMES.split(", "), start=1)
)
_PURPOSE = (
    "Names what is seen in photographs of rooms and streets, nothing in anatomy: a start for fine-tuning, and the "
    "format in which fine-tuned ones come."
)


def _segformer(size: str, pixels: int, file: str, memory_bytes: int) -> ModelCard:
    published = f"segformer-{size}-finetuned-ade-{pixels}-{pixels}"
    return ModelCard(
        name=f"segformer-{size}-ade20k",
        title=f"SegFormer {size.upper()}, ADE20K",
        family="segformer",
        architecture=f"mit-{size}",
        builder="napari_medtransformer.models.segformer:build",
        task="automatic",
        dimensions=2,
        input=photograph_input(pixels),
        modalities=("photographs",),
        labels=_LABELS,
        weights=WeightsSource(
            f"{HUGGING_FACE}/nvidia/{published}/resolve/main/{file}", f"{published}.{file.rpartition('.')[2]}"
        ),
        licence="NVIDIA Source Code License for SegFormer (research and evaluation)",
        citation="Xie et al., SegFormer, NeurIPS 2021, arXiv:2105.15203",
        description=_PURPOSE,
        training="20,210 photographs of scenes with 150 classes (ADE20K).",
        memory_bytes=memory_bytes,
    )


_SEGFORMERS = (
    _segformer("b0", 512, "model.safetensors", 1_200 * MB),
    _segformer("b5", 640, "pytorch_model.bin", 2_000 * MB),
)


def _upernet(size: str, title: str, sha256: str | None, memory_bytes: int) -> ModelCard:
    return replace(
        _SEGFORMERS[0],
        name=f"upernet-swin-{size[0]}-ade20k",
        title=f"UperNet {title}, ADE20K",
        family="upernet",
        architecture=f"swin-{size[0]}",
        builder="napari_medtransformer.models.upernet:build",
        input=photograph_input(512),
        weights=WeightsSource(
            f"{HUGGING_FACE}/openmmlab/upernet-swin-{size}/resolve/main/pytorch_model.bin",
            f"upernet-swin-{size}.bin",
            sha256,
        ),
        licence="MIT",
        citation="Xiao et al., UPerNet, ECCV 2018, arXiv:1807.10221; Liu et al., Swin Transformer, ICCV 2021",
        memory_bytes=memory_bytes,
    )


CARDS = (
    *_SEGFORMERS,
    _upernet("tiny", "Swin-T", None, 1_400 * MB),
    # the digest is on the publishers' page
    _upernet("small", "Swin-S", "f87459400d8e5f42008e45efaa93a40358814a5a51b20daa2416c1689406357b", 1_500 * MB),
)

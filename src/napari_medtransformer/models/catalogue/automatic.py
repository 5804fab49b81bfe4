"""The automatic models this package knows by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from napari_medtransformer.models.card import InputContract, LabelInfo, ModelCard, WeightsSource
from napari_medtransformer.models.catalogue.common import MB

_swin_unetr = partial(
    ModelCard,
    family="swin-unetr",
    builder="napari_medtransformer.models.swin_unetr:build",
    task="automatic",
    dimensions=3,
)
_as_unetr = partial(replace, family="unetr", builder="napari_medtransformer.models.unetr:build")

_HIPPOCAMPUS_LABELS = (
    LabelInfo(1, "anterior hippocampus", (0.95, 0.62, 0.25)),
    LabelInfo(2, "posterior hippocampus", (0.30, 0.70, 0.95)),
)
_HIPPOCAMPUS_INPUT = InputContract(
    size=(40, 56, 40),
    spacing_mm=(1.0, 1.0, 1.0),
    intensities="clipped to the volume's 0.5 to 99.5 percentiles, then mean 0 and deviation 1",
    extent_mm=(47.0, 59.0, 41.0),
    mirrored=(2,),
)

# Names and order of the classes as the published models give them (Landman et al. 2015, the BTCV challenge).
_BTCV_LABELS = (
    LabelInfo(1, "spleen", (0.62, 0.27, 0.40)),
    LabelInfo(2, "right kidney", (0.73, 0.40, 0.16)),
    LabelInfo(3, "left kidney", (0.85, 0.52, 0.28)),
    LabelInfo(4, "gallbladder", (0.36, 0.67, 0.33)),
    LabelInfo(5, "esophagus", (0.83, 0.63, 0.55)),
    LabelInfo(6, "liver", (0.87, 0.51, 0.40)),
    LabelInfo(7, "stomach", (0.85, 0.76, 0.52)),
    LabelInfo(8, "aorta", (0.88, 0.25, 0.25)),
    LabelInfo(9, "inferior vena cava", (0.25, 0.52, 0.86)),
    LabelInfo(10, "portal and splenic veins", (0.42, 0.65, 0.92)),
    LabelInfo(11, "pancreas", (0.95, 0.82, 0.45)),
    LabelInfo(12, "right adrenal gland", (0.60, 0.48, 0.78)),
    LabelInfo(13, "left adrenal gland", (0.74, 0.60, 0.88)),
)
# 1.5 × 1.5 × 2 mm and -175 … 250 HU, as both were trained; (z, y, x) here.
_BTCV_INPUT = InputContract(
    size=(96, 96, 96),
    spacing_mm=(2.0, 1.5, 1.5),
    intensities="-175 to 250 HU become 0 to 1",
    clip=(-175.0, 250.0),
)

_HIPPOCAMPUS = _swin_unetr(
    name="medt-hippocampus",
    title="Hippocampus, SwinUNETR",
    architecture="compact",
    weights="medt-hippocampus-swin-unetr.safetensors",
    training=(
        "160 cropped T1-weighted MRIs of one hippocampus, about 35 × 50 × 35 voxels of 1 mm, labelled by hand (Medical "
        "Segmentation Decathlon, Task04, CC BY-SA 4.0); 40 others for validation."
    ),
    licence="BSD-3-Clause; trained on data under CC BY-SA 4.0",
    citation="napari-medtransformer, this package",
    description=(
        "The bundled automatic model: names the anterior and the posterior part in an MRI cropped to one "
        "hippocampus, offline, on a CPU. It finds no hippocampus in a whole head."
    ),
    input=_HIPPOCAMPUS_INPUT,
    modalities=("MR",),
    anatomy=("hippocampus",),
    labels=_HIPPOCAMPUS_LABELS,
    memory_bytes=450 * MB,
)
_BTCV = _swin_unetr(
    name="swin-unetr-btcv",
    title="Abdomen, SwinUNETR (MONAI)",
    architecture="monai-48-ras",
    # The bundle gives an MD5 only, 50dd67a01b28a1d5487fd9ac27e682fb.
    weights=WeightsSource(
        "https://developer.download.nvidia.com/assets/Clara/monai/tutorials/model_zoo/"
        "model_swin_unetr_btcv_segmentation_v1.pt",
        "model_swin_unetr_btcv_segmentation_v1.pt",
    ),
    training="24 portal venous CTs of the abdomen (BTCV, 512 × 512 × 85 to 198 voxels).",
    licence="Apache-2.0",
    citation="Tang et al., Self-supervised pre-training of Swin transformers, CVPR 2022, arXiv:2111.14791",
    description="MONAI's model zoo bundle for 13 abdominal organs in CT; its authors report a mean Dice of 0.827.",
    input=_BTCV_INPUT,
    modalities=("CT",),
    anatomy=("abdomen",),
    labels=_BTCV_LABELS,
    memory_bytes=2_900 * MB,
    # Below that the network's input is 0, as in air; no organ it names has voxels there.
    air_below=-175.0,
)

CARDS: tuple[ModelCard, ...] = (
    _HIPPOCAMPUS,
    _as_unetr(
        _HIPPOCAMPUS,
        name="medt-hippocampus-unetr",
        title="Hippocampus, UNETR",
        weights="medt-hippocampus-unetr.safetensors",
        description=(
            "medt-hippocampus with a global transformer of 8 layers instead of shifted windows; quicker, and its "
            "attention spans the whole window."
        ),
        memory_bytes=350 * MB,
    ),
    _BTCV,
    _as_unetr(
        _BTCV,
        name="unetr-btcv",
        title="Abdomen, UNETR (MONAI)",
        architecture="monai-16",
        weights=None,
        citation="Hatamizadeh et al., UNETR: transformers for 3D medical image segmentation, WACV 2022",
        description=(
            "Its authors' weights for 13 abdominal organs in CT are on a file-sharing page without a fixed address: "
            "fetch UNETR_model_best_acc.pth as the README of MONAI's research-contributions/UNETR/BTCV says, and give "
            "its path."
        ),
        memory_bytes=2_200 * MB,
    ),
)

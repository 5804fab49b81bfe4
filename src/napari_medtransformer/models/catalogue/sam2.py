"""Cards of SAM 2.1 and MedSAM2.

The digest of the tiny model is on Meta's page at Hugging Face (facebook/sam2.1-hiera-tiny); those of the others are the
ones under which copies of Meta's files are kept there. MedSAM2's authors give none: it is pinned at first download.
"""

from __future__ import annotations

from dataclasses import replace

from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.catalogue.common import HUGGING_FACE, MB, photograph_input

_META = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_CITATION = "Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025, arXiv:2408.00714"


def _sam2(size: str, title: str, file: str, sha256: str, file_bytes: int, memory_bytes: int) -> ModelCard:
    return ModelCard(
        name=f"sam2.1-{size}",
        title=f"SAM 2.1 {title}",
        family="sam2",
        architecture=size,
        builder="napari_medtransformer.models.sam2:build",
        task="promptable",
        dimensions=2,
        input=photograph_input(1024, "stretch"),
        modalities=("photographs", "video"),
        weights=WeightsSource(f"{_META}/{file}", file, sha256, file_bytes),
        licence="Apache-2.0",
        citation=_CITATION,
        description="Meta's second promptable model: lighter and sharper than SAM; trained on photographs and video.",
        memory_bytes=memory_bytes,
    )


_TINY = _sam2(
    "hiera-t",
    "Hiera-T",
    "sam2.1_hiera_tiny.pt",
    "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    156_008_466,
    1_400 * MB,
)

CARDS = (
    _TINY,
    _sam2(
        "hiera-s",
        "Hiera-S",
        "sam2.1_hiera_small.pt",
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        184_416_285,
        1_400 * MB,
    ),
    _sam2(
        "hiera-b-plus",
        "Hiera-B+",
        "sam2.1_hiera_base_plus.pt",
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        323_606_802,
        1_700 * MB,
    ),
    _sam2(
        "hiera-l",
        "Hiera-L",
        "sam2.1_hiera_large.pt",
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        898_083_611,
        2_600 * MB,
    ),
    replace(
        _TINY,
        name="medsam2",
        title="MedSAM2",
        input=photograph_input(512, "stretch"),
        modalities=("CT", "MR", "PET", "ultrasound", "endoscopy"),
        weights=WeightsSource(
            f"{HUGGING_FACE}/wanglab/MedSAM2/resolve/main/MedSAM2_latest.pt", "MedSAM2_latest.pt", None, None
        ),
        licence="CC BY-SA 4.0 (weights), Apache-2.0 (code)",
        citation="Ma et al., MedSAM2: Segment Anything in 3D Medical Images and Videos, arXiv:2504.03600",
        description="SAM 2.1 Hiera-T at 512² fine-tuned on 455,000 3D image-mask pairs and video, with boxes.",
        memory_bytes=900 * MB,
    ),
)

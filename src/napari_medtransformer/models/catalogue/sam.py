"""Cards of Segment Anything, MedSAM, SAM-HQ and SAM-Med2D.

Digests of Meta's files are those that micro-sam and 3D Slicer's extension pin; the six hex digits in Meta's file names
are the start of the files' MD5. Those of SAM-HQ are on the authors' pages at Hugging Face (lkeab/hq-sam). Memory:
what docs/models.md measured, rounded up.
"""

from __future__ import annotations

from dataclasses import replace

from napari_medtransformer.models.card import InputContract, ModelCard, WeightsSource
from napari_medtransformer.models.catalogue.common import HUGGING_FACE, MB, photograph_input

_META = "https://dl.fbaipublicfiles.com/segment_anything"


def _sam(size: str, file: str, sha256: str, file_bytes: int, memory_bytes: int) -> ModelCard:
    return ModelCard(
        name=f"sam-vit-{size}",
        title=f"Segment Anything ViT-{size.upper()}",
        family="sam",
        architecture=f"vit-{size}",
        builder="napari_medtransformer.models.sam:build",
        task="promptable",
        dimensions=2,
        input=photograph_input(1024),
        modalities=("photographs",),
        weights=WeightsSource(f"{_META}/{file}", file, sha256, file_bytes),
        licence="Apache-2.0",
        citation="Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643",
        description="Meta's promptable model, trained on photographs; on medical images a box helps it most.",
        memory_bytes=memory_bytes,
    )


def _sam_hq(sam: ModelCard, sha256: str, file_bytes: int) -> ModelCard:
    """The SAM-HQ over the encoder of a SAM."""
    file = f"sam_hq_{sam.architecture.replace('-', '_')}.pth"
    return replace(
        sam,
        name=sam.name.replace("sam", "sam-hq"),
        title=sam.title.replace("Segment Anything", "SAM-HQ"),
        family="sam-hq",
        builder="napari_medtransformer.models.sam_hq:build",
        weights=WeightsSource(f"{HUGGING_FACE}/lkeab/hq-sam/resolve/main/{file}", file, sha256, file_bytes),
        citation="Ke et al., Segment Anything in High Quality, NeurIPS 2023, arXiv:2306.01567",
        description="SAM with one more token that sharpens outlines; trained on photographs.",
    )


_SAM = (
    _sam(
        "b",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
        1_600 * MB,
    ),
    _sam(
        "l",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
        2_900 * MB,
    ),
    _sam(
        "h",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
        4_600 * MB,
    ),
)
_SAM_B, _SAM_L, _SAM_H = _SAM

CARDS = (
    *_SAM,
    replace(
        _SAM_B,
        name="medsam",
        title="MedSAM ViT-B",
        input=InputContract(
            size=(1024, 1024),
            channels=3,
            intensities="windowed to [0, 1], repeated to three channels",
            fit="stretch",
        ),
        modalities=("CT", "MR", "ultrasound", "X-ray", "endoscopy", "pathology"),
        weights=WeightsSource(
            "https://zenodo.org/records/10689643/files/medsam_vit_b.pth", "medsam_vit_b.pth", None, 375_049_145
        ),
        citation="Ma et al., Segment anything in medical images, Nature Communications 2024",
        description="SAM ViT-B fine-tuned on 1.6 million medical masks with boxes; it was not trained on clicks.",
    ),
    _sam_hq(_SAM_B, "14a9d662cd6f5a9c2dba6d40ab0058d88d287e4a18fd6fdc6ad5fb1a3fdeaa57", 379_335_069),
    _sam_hq(_SAM_L, "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343", 1_254_865_805),
    _sam_hq(_SAM_H, "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35", 2_570_940_653),
    ModelCard(
        name="sam-med2d",
        title="SAM-Med2D",
        family="sam-med2d",
        architecture="vit-b",
        builder="napari_medtransformer.models.sam_med2d:build",
        task="promptable",
        dimensions=2,
        input=photograph_input(256, "stretch"),
        modalities=("CT", "MR", "ultrasound", "X-ray", "endoscopy", "dermoscopy", "microscopy", "PET"),
        weights=WeightsSource(
            "https://drive.usercontent.google.com/download?id=1ARiB5RkSsWmAB_8mqWnwDF8ZKTtFwsjl&export=download&confirm=t",
            "sam-med2d_b.pth",
        ),
        licence="Apache-2.0",
        citation="Cheng et al., SAM-Med2D, arXiv:2308.16184",
        description=(
            "SAM ViT-B at 256² with adapters, fine-tuned on 4.6 million medical images with points, boxes and masks. "
            "The authors publish it on Google Drive, 2.6 GB with the optimiser's state."
        ),
        memory_bytes=1_700 * MB,
    ),
)

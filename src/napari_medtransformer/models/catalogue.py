"""The models this package knows by itself."""

from __future__ import annotations

from napari_medtransformer.models.card import InputContract, ModelCard, WeightsSource

_MB = 1_000_000
_META = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_CITATION = "Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643"
_SAM_INPUT = InputContract(
    size=(1024, 1024),
    channels=3,
    intensities="windowed to [0, 1], repeated to three channels, ImageNet mean and deviation",
)


def _sam(size: str, title: str, file: str, sha256: str, file_bytes: int, memory_bytes: int) -> ModelCard:
    return ModelCard(
        name=f"sam-vit-{size}",
        title=f"Segment Anything {title}",
        family="sam",
        architecture=f"vit-{size}",
        builder="napari_medtransformer.models.sam:build",
        task="promptable",
        dimensions=2,
        input=_SAM_INPUT,
        modalities=("photographs",),
        weights=WeightsSource(f"{_META}/{file}", file, sha256, file_bytes),
        licence="Apache-2.0",
        citation=_SAM_CITATION,
        description="Meta's promptable model, trained on photographs; on medical images a box helps it most.",
        memory_bytes=memory_bytes,
    )


# The digests are those that micro-sam and 3D Slicer's extension pin for Meta's files; the six hex digits in Meta's
# file names are the start of the files' MD5. Memory: parameters in float32 and the activations of one encoding.
CARDS: tuple[ModelCard, ...] = (
    ModelCard(
        name="medt-click-tiny",
        title="MedTransformer Click, tiny",
        family="click",
        architecture="tiny",
        builder="napari_medtransformer.models.click:build",
        task="promptable",
        dimensions=2,
        input=InputContract(size=(256, 256)),
        modalities=("CT", "MR"),
        anatomy=("abdomen", "thorax", "brain", "spine"),
        weights="medt-click-tiny.safetensors",
        licence="BSD-3-Clause; trained on data under Apache-2.0, CC BY-SA 4.0, CC BY 4.0 and MIT",
        citation="napari-medtransformer, this package",
        description=(
            "The bundled hybrid of a convolutional stem and a global transformer: works offline, on a CPU. "
            "First weights, from few patients: medt-click-tiny.md beside them says on what and how well."
        ),
        memory_bytes=300 * _MB,
    ),
    _sam(
        "b",
        "ViT-B",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
        1_600 * _MB,
    ),
    _sam(
        "l",
        "ViT-L",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
        2_900 * _MB,
    ),
    _sam(
        "h",
        "ViT-H",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
        4_600 * _MB,
    ),
    ModelCard(
        name="medsam",
        title="MedSAM ViT-B",
        family="sam",
        architecture="vit-b",
        builder="napari_medtransformer.models.sam:build",
        task="promptable",
        dimensions=2,
        input=InputContract(
            size=(1024, 1024), channels=3, intensities="windowed to [0, 1], repeated to three channels"
        ),
        modalities=("CT", "MR", "ultrasound", "X-ray", "endoscopy", "pathology"),
        weights=WeightsSource(
            "https://zenodo.org/records/10689643/files/medsam_vit_b.pth", "medsam_vit_b.pth", None, 375_049_145
        ),
        licence="Apache-2.0",
        citation="Ma et al., Segment anything in medical images, Nature Communications 2024",
        description="SAM ViT-B fine-tuned on 1.6 million medical masks with boxes; it was not trained on clicks.",
        memory_bytes=1_600 * _MB,
    ),
)

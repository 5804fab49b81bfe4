"""SAM-Med3D's card. The digest is on the authors' page at Hugging Face (blueyo0/SAM-Med3D)."""

from __future__ import annotations

from napari_medtransformer.models.card import InputContract, ModelCard, WeightsSource
from napari_medtransformer.models.catalogue.common import HUGGING_FACE, MB

CARDS = (
    ModelCard(
        name="sam-med3d",
        title="SAM-Med3D turbo",
        family="sam-med3d",
        architecture="vit-b",
        builder="napari_medtransformer.models.sam_med3d:build",
        task="promptable",
        dimensions=3,
        input=InputContract(
            size=(128, 128, 128),
            spacing_mm=(1.5, 1.5, 1.5),
            intensities="native (CT clamped to ±1000 HU), mean 0 and deviation 1 over the crop's voxels above 0",
        ),
        modalities=("CT", "MR", "ultrasound"),
        weights=WeightsSource(
            f"{HUGGING_FACE}/blueyo0/SAM-Med3D/resolve/main/sam_med3d_turbo.pth",
            "sam_med3d_turbo.pth",
            "899a46d04d3b70f723282ceb489149373558bf0aaba389a346f5ab57da5cdd3c",
        ),
        licence="Apache-2.0",
        citation="Wang et al., SAM-Med3D, ECCV Workshops 2024, arXiv:2310.15161",
        description="Answers clicks in 3D at once, in a cube of 19 cm around them; trained on 44 medical datasets.",
        memory_bytes=1_000 * MB,
    ),
)

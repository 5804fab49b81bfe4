"""Small networks whose attention can also be computed by hand."""

from __future__ import annotations

import pytest

from napari_medtransformer.models import find_card


@pytest.fixture
def small_sam():
    """A SAM of 128² input, 8×8 tokens, 3 blocks (windows of 3, global, windows), 4 heads, seeded weights."""
    import torch
    from transformers import SamConfig

    from napari_medtransformer.models.sam import SamAdapter, random_sam

    config = SamConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 128,
            "window_size": 3,
            "global_attn_indexes": [1],
        },
        prompt_encoder_config={"image_size": 128},
    )
    return SamAdapter(find_card("sam-vit-b"), random_sam(config, seed=0), torch.device("cpu"), torch.float32)

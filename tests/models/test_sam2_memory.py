"""SAM 2's memory through slices against transformers' inference on the same frames as a video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import SAM2_SIZE, SMALL_HIERA, small_sam2_network
from torch import nn
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from napari_medtransformer.models import find_card
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.following import SliceView
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.sam2 import Sam2Adapter, build, memory_config, sam2_config
from napari_medtransformer.models.sam2_memory import Sam2Memory
from napari_medtransformer.models.sam2_names import memory_names

CPU = torch.device("cpu")
SIZE = SAM2_SIZE
FRAMES, MARKED = 20, 1  # more frames than the memory has places, of maps and of pointers
ANY = Prompts(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
VIDEO = np.random.default_rng(0).random((FRAMES, SIZE, SIZE), dtype=np.float32)
MASK = np.zeros((SIZE, SIZE), bool)
MASK[30:70, 40:90] = True


def adapter(presence: float, seed: int = 0) -> Sam2Adapter:
    """Random weights whose decoder mostly says that there is something (presence > 0), or that there is not."""
    network = small_sam2_network(seed)
    nn.init.constant_(network.mask_decoder.pred_obj_score_head.proj_out.bias, presence)
    memory = draw_weights(Sam2Memory(memory_config(SIZE)), seed + 1)
    return Sam2Adapter(find_card("sam2.1-hiera-t"), network, CPU, torch.float32, memory)


def view(model: Sam2Adapter, index: int) -> SliceView:
    return SliceView(VIDEO[index], (1.0, 1.0), lambda: model.encode(VIDEO[index]))


def their_masks(ours: Sam2Adapter, start: int, reverse: bool) -> list[np.ndarray]:
    """Masks of transformers' own propagation, by eager attention, from MASK on frame `start`."""
    parts = sam2_config(SMALL_HIERA, SIZE)
    config = Sam2VideoConfig(
        vision_config=parts.vision_config.to_dict(),
        prompt_encoder_config={"image_size": SIZE},
        image_size=SIZE,
        memory_attention_rope_feat_sizes=[SIZE // 16] * 2,
    )
    theirs = Sam2VideoModel._from_config(config, attn_implementation="eager").eval()
    assert ours.memory is not None
    theirs.load_state_dict({**ours.network.state_dict(), **ours.memory.state_dict()})
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    frames = (torch.from_numpy(VIDEO)[:, None] - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    session = Sam2VideoInferenceSession(frames, SIZE, SIZE, dtype=torch.float32)
    number = session.obj_id_to_idx(1)
    session.add_mask_inputs(number, start, torch.from_numpy(MASK)[None, None].float())
    session.obj_with_new_inputs = [1]
    found = []
    for step in theirs.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse):
        whole = F.interpolate(step.pred_masks, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        found.append(whole[0, 0].numpy())
    return found[1:]  # the first is the marked frame


@pytest.mark.parametrize("reverse", [False, True], ids=["upwards", "downwards"])
@pytest.mark.parametrize("presence", [2.0, -2.0], ids=["present", "absent"])
def test_an_object_is_followed_as_transformers_follows_it_through_a_video(reverse: bool, presence: float) -> None:
    ours = adapter(presence)
    start = FRAMES - 1 - MARKED if reverse else MARKED
    expected = their_masks(ours, start, reverse)
    follower = ours.follower()
    assert follower is not None
    follower.begin(view(ours, start), np.where(MASK, 6.0, -6.0).astype(np.float32))
    order = range(start - 1, -1, -1) if reverse else range(start + 1, FRAMES)
    for index, theirs in zip(order, expected, strict=True):
        found = follower.look(view(ours, index), ANY)
        follower.keep(found.logits[0])
        # what differs is the order of sums in fused attention
        assert np.allclose(found.logits[0], theirs, atol=1e-4), index
        assert (found.scores[0] == 0) == (theirs.max() < -1000)
    assert {bool(theirs.max() < -1000) for theirs in expected} == {presence < 0}


def test_a_mask_that_overrules_the_network_is_what_is_remembered() -> None:
    ours = adapter(2.0)
    later = []
    for overruled in (False, True):
        follower = ours.follower()
        assert follower is not None
        follower.begin(view(ours, 0), np.where(MASK, 6.0, -6.0).astype(np.float32))
        own = follower.look(view(ours, 1), ANY).logits[0]
        follower.keep(np.where(MASK, 6.0, -6.0).astype(np.float32) if overruled else own)
        later.append(follower.look(view(ours, 2), ANY).logits[0])
    assert not np.allclose(later[0], later[1], atol=1e-3)


def test_slices_of_other_shapes_come_back_on_their_own_pixels() -> None:
    ours = adapter(2.0)
    image = VIDEO[0, :50, :77]
    seen = SliceView(image, (1.0, 1.0), lambda: ours.encode(image))
    follower = ours.follower()
    assert follower is not None
    follower.begin(seen, np.where(MASK[:50, :77], 6.0, -6.0).astype(np.float32))
    found = follower.look(seen, ANY)
    follower.keep(found.logits[0])
    assert found.logits.shape == (1, 50, 77)


def published_memory_names() -> list[str]:
    """The names of the memory's tensors in Meta's files, from its published modules."""
    names = ["maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial"]
    pairs = ["mask_downsample", "obj_ptr_tpos_proj", *(f"obj_ptr_proj.layers.{i}" for i in range(3))]
    pairs += ["memory_encoder.pix_feat_proj", "memory_encoder.out_proj", "memory_attention.norm"]
    pairs += [f"memory_encoder.mask_downsampler.encoder.{i}" for i in (0, 1, 3, 4, 6, 7, 9, 10, 12)]
    for i in range(2):
        fuser = f"memory_encoder.fuser.layers.{i}"
        names.append(f"{fuser}.gamma")
        pairs += [f"{fuser}.{part}" for part in ("dwconv", "norm", "pwconv1", "pwconv2")]
    for i in range(4):
        layer = f"memory_attention.layers.{i}"
        for attention in ("self_attn", "cross_attn_image"):
            pairs += [f"{layer}.{attention}.{part}_proj" for part in ("q", "k", "v", "out")]
        pairs += [f"{layer}.{part}" for part in ("linear1", "linear2", "norm1", "norm2", "norm3")]
    return names + [f"{name}.{part}" for name in pairs for part in ("weight", "bias")]


def test_published_names_of_the_memory_become_transformers_names_one_to_one() -> None:
    memory = Sam2Memory(memory_config(SIZE))
    published = {name: torch.zeros(1) for name in published_memory_names()}
    assert len(published) == 160  # of the 471 tensors in sam2.1_hiera_tiny.pt
    assert sorted(memory_names(published)) == sorted(memory.state_dict())
    own = dict(memory.state_dict())
    assert sorted(memory_names(own)) == sorted(own)


def test_a_checkpoint_without_the_memory_answers_prompts_and_follows_by_masks() -> None:
    card = replace(find_card("medsam2"), input=replace(find_card("medsam2").input, size=(SIZE, SIZE)))
    whole = build(card, None, seed=0, device=CPU, dtype=torch.float32)
    assert whole.follower() is not None
    image_part = dict(whole.network.state_dict())
    assert build(card, image_part, seed=0, device=CPU, dtype=torch.float32).follower() is None
    assert whole.memory is not None
    both = build(card, {**image_part, **whole.memory.state_dict()}, seed=0, device=CPU, dtype=torch.float32)
    assert both.memory is not None
    for name, value in whole.memory.state_dict().items():
        assert torch.equal(both.memory.state_dict()[name], value), name

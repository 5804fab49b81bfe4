"""Losses and overlaps of candidate masks, shared by both looks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Weight of the squared error of the expected overlap beside the loss of the mask.
SCORE_WEIGHT = 3.0


def mask_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Class-balanced cross-entropy plus Dice for every candidate. logits (B, m, h, w), target (B, h, w): (B, m)."""
    truth = target[:, None].float().expand_as(logits)
    inside = truth.mean(dim=(2, 3), keepdim=True).clamp(1e-3, 0.999)
    # Square roots: full balance makes small targets bleed, none lets them vanish.
    weight = torch.where(truth > 0.5, (0.5 / inside).sqrt(), (0.5 / (1 - inside)).sqrt())
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    chance = logits.sigmoid()
    overlap = (chance * truth).sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)
    return 2 * (entropy * weight).mean(dim=(2, 3)) + dice


def intersection_over_union(logits: Tensor, target: Tensor) -> Tensor:
    """True IoU of every candidate: (B, m)."""
    predicted = logits > 0
    truth = target[:, None].expand_as(predicted)
    return (predicted & truth).sum(dim=(2, 3)) / (predicted | truth).sum(dim=(2, 3)).clamp(min=1)

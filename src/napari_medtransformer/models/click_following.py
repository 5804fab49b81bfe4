"""The bundled network follows objects with its second look alone: no slice is encoded on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medtransformer.models.base import MaskPrediction, Prompts
from napari_medtransformer.models.focus_network import FocusNetwork
from napari_medtransformer.models.following import Follower, SliceView
from napari_medtransformer.models.second_look import second_look

if TYPE_CHECKING:
    from napari_medtransformer.models.click import ClickModel


class SecondLooks(Follower):
    """The mask of the slice before is the guess that the second look mends: it was trained on masks spoilt like that.

    It remembers nothing itself.
    """

    encodes = False

    def __init__(self, model: ClickModel, network: FocusNetwork) -> None:
        self._model, self._network = model, network

    def begin(self, view: SliceView, logits: np.ndarray) -> None:
        """Nothing to remember."""

    @torch.inference_mode()
    def look(self, view: SliceView, prompts: Prompts) -> MaskPrediction:
        """One candidate: the slice before's mask, mended. Costs a sixth of encoding and decoding the slice."""
        model = self._model
        if prompts.mask_logits is None:
            raise ValueError("an object is followed from its mask on the slice before; the prompts hold none.")
        rows, columns = view.image.shape
        placement = model.placement((rows, columns), view.pixel_size)
        image = torch.from_numpy(np.ascontiguousarray(view.image, np.float32)).to(model.device)[None, None]
        guess = torch.from_numpy(np.ascontiguousarray(prompts.mask_logits, np.float32)).to(model.device)[None]
        logits, scores = second_look(self._network, image, placement, prompts, guess)
        return MaskPrediction(logits.float().cpu().numpy(), scores.float().cpu().numpy())

    def keep(self, logits: np.ndarray) -> None:
        """Nothing to remember."""

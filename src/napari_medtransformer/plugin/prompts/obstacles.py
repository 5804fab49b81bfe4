"""Why a click cannot be answered now, in words that say what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController


def obstacle_to_clicks(controller: SessionController) -> str:
    """What is in the way of answering a click, and what to do about it; empty if nothing is."""
    if controller.layer_fault:
        return controller.layer_fault
    if controller.workspace is None:
        return "Open a CT or MR volume: File → Open, or File → Open Sample → MedTransformer."
    if controller.models.fault:
        return controller.models.fault
    if controller.model is None and not controller.models.loading:
        return "Choose a model."
    viewer = controller.viewer
    if viewer is not None and viewer.dims.ndisplay != 2:
        return "Prompts are given in 2D: choose a plane."
    if viewer is not None and viewer.dims.ndim - 4 in viewer.dims.displayed:
        return "Frames are shown side by side; prompts are given on slices: choose a plane."
    return ""

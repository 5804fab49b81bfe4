"""Automatic segmentation of whole volumes in bounded memory: windows in, labels out, a slab at a time."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from napari_medtransformer.errors import InvalidOption, MedTransformerError, OutOfMemory, UnsupportedModel, in_words
from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.memory import is_out_of_memory
from napari_medtransformer.progress import Partial, Progress, Result, Steps, run_to_end
from napari_medtransformer.segmentation.landing import Outcome
from napari_medtransformer.segmentation.options import SegmentOptions
from napari_medtransformer.segmentation.plausibility import doubts
from napari_medtransformer.segmentation.run import FinishedSlab, Run, by, said
from napari_medtransformer.volumes.volume import Volume, check_volume


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented volume; all arrays (z, y, x) on the volume's own grid.

    labels: unsigned integers, the values of the card's labels, 0 background. entropy: of the classes' probabilities,
    nats; disagreement: the share of mirrored passes that say something else than their mean, [0, 1]; float32, None
    unless asked for. messages: what the user should know. windows: how many there were; skipped: how many of them held
    nothing but air and were left out.
    """

    labels: np.ndarray
    entropy: np.ndarray | None = None
    disagreement: np.ndarray | None = None
    messages: tuple[str, ...] = ()
    windows: int = 0
    skipped: int = 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The labels."""
        return np.array(self.labels, dtype=dtype, copy=copy)


def segment(model: AutomaticModel, volume: Volume, **options: Any) -> np.ndarray:
    """Labels (z, y, x) of every structure an automatic model knows, on the volume's own grid.

    options: see SegmentOptions. Peak memory is the volume, the labels, and the logits where a row of windows overlaps
    the next. Raises UnsupportedModel, InvalidOption, OutOfMemory.
    """
    return run_to_end(segment_steps(model, volume, **options)).labels


def segment_steps(model: AutomaticModel, volume: Volume, **options: Any) -> Steps[Segmentation]:
    """As `segment`, step by step: Progress in windows, Partial of each FinishedSlab, at last Result of a Segmentation.

    Something is yielded at least every quarter of a second while the network runs, and closing the generator stops it
    before its next layer. What a user should know (air left out, memory run out, a volume unlike the model's training)
    is a warning and a Progress with a message.
    """
    chosen = SegmentOptions(**options)
    check_model(model, chosen)
    check_volume(volume)
    if model.card.dimensions == 2 and chosen.plane == "all":
        from napari_medtransformer.segmentation.planes import voted_steps

        return voted_steps(model, volume, chosen)
    return steps_of(model, volume, chosen)


def volume_logits(model: AutomaticModel, volume: Volume, **options: Any) -> np.ndarray:
    """Logits (classes, z, y, x) float32 on the volume's grid, background first: for comparisons on small volumes."""
    chosen = SegmentOptions(**options)
    check_model(model, chosen)
    outcome = new_outcome(model, volume, chosen)
    outcome.logits = np.zeros((1 + len(model.card.labels), *volume.shape), np.float32)
    run_to_end(steps_of(model, volume, chosen, outcome))
    return outcome.logits


def check_model(model: AutomaticModel, chosen: SegmentOptions) -> None:
    """Whether the model segments by itself, as the options want it. Raises UnsupportedModel, InvalidOption."""
    if not isinstance(getattr(model, "card", None), ModelCard):
        raise UnsupportedModel(f"{in_words(model)} is no loaded model; load one, as by load_model('medt-hippocampus').")
    if model.card.task != "automatic":
        raise UnsupportedModel(
            f"{model.card.name} waits for prompts; choose an automatic model, such as medt-hippocampus."
        )
    card, multiple = model.card, model.window_multiple
    own_size = chosen.window is not None and chosen.window != card.input.size
    if (own_size or chosen.whole) and multiple is None:
        raise InvalidOption(f"{card.name} takes windows of {by(card.input.size)} alone; leave window and whole out.")
    if chosen.window is not None and multiple is not None and not _fits(chosen.window, multiple):
        raise InvalidOption(f"{card.name} takes windows of multiples of {by(multiple)}, not {by(chosen.window)}.")
    known = card.input.mirrored
    if known is not None and not set(chosen.mirror) <= set(known):
        asked, trained = (", ".join("zyx"[axis] for axis in axes) for axes in (chosen.mirror, known))
        limit = f"along {trained} alone" if trained else "along no axis"
        raise InvalidOption(
            f"windows mirrored along {asked} were asked for; {card.name} was trained with mirrored ones {limit} and "
            "takes others for what they are not."
        )
    if chosen.mirror and model.on_encode:
        raise InvalidOption("a probe sees windows as they are; leave mirrored passes out while one is attached.")


def _fits(window: tuple[int, ...], multiple: tuple[int, ...]) -> bool:
    return len(window) == len(multiple) and all(n % m == 0 for n, m in zip(window, multiple))


def steps_of(
    model: AutomaticModel, volume: Volume, chosen: SegmentOptions, outcome: Outcome | None = None
) -> Generator[Progress | Partial[FinishedSlab] | Result[Segmentation], None, None]:
    """segment_steps of checked options and one plane; `outcome` is filled if given."""
    messages: list[str] = []
    for doubt in doubts(volume, model.card, chosen.region):
        yield said(messages, doubt, 0, None)
    outcome = outcome or new_outcome(model, volume, chosen)
    home = model.device
    window = _window(model, chosen)
    try:
        while True:
            try:
                run = Run(model, volume, chosen, window, outcome)
                yield from run.steps(messages)
                break
            except Exception as error:
                if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                    raise
                smaller = _smaller(model, window)
                if smaller is None:
                    raise OutOfMemory(
                        f"{_reason(error)} No smaller window is left; choose a region, or a machine with more memory."
                    ) from error
                window, device = smaller
                moved = f" on {device}" if device != model.device else ""
                _move(model, device)
                message = f"{_reason(error)} Starting again with windows of {by(window)}{moved}."
                yield said(messages, message, 0, None)
    finally:
        if model.device != home:
            _move(model, home)
    yield Result(
        Segmentation(outcome.labels, outcome.entropy, outcome.disagreement, tuple(messages), run.windows, run.skipped)
    )


def new_outcome(model: AutomaticModel, volume: Volume, chosen: SegmentOptions) -> Outcome:
    """Empty arrays for what the options ask for."""
    values = [0, *(label.value for label in model.card.labels)]
    dtype = np.min_scalar_type(max(values))
    empty = [np.zeros(volume.shape, np.float32) if wanted else None
             for wanted in (chosen.uncertainty, chosen.uncertainty and bool(chosen.mirror))]  # fmt: skip
    return Outcome(np.zeros(volume.shape, dtype), np.array(values, dtype), *empty)


def _window(model: AutomaticModel, chosen: SegmentOptions) -> tuple[int, ...]:
    """Voxels per axis of the model's input; all 0 for the whole volume."""
    size = model.card.input.size
    return (0,) * len(size) if chosen.whole else chosen.window or size


def _smaller(model: AutomaticModel, window: tuple[int, ...]) -> tuple[tuple[int, ...], torch.device] | None:
    """What to try when a window does not fit: the card's window, half of it, then the processor; None if all failed."""
    own, multiple, least = model.card.input.size, model.window_multiple, model.least_window
    half = own
    if multiple is not None and least is not None:
        half = tuple(max(low, n // 2 // m * m) for n, m, low in zip(own, multiple, least, strict=True))
    volume = math.prod(window)
    if volume == 0 or volume > math.prod(own):
        return own, model.device
    if volume > math.prod(half):
        return half, model.device
    if model.device.type != "cpu":
        return own, torch.device("cpu")
    return None


def _move(model: AutomaticModel, device: torch.device) -> None:
    model.network.to(device)
    model.device = device
    if device.type == "cpu" and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    if isinstance(error, MedTransformerError):
        text = str(error)
        return text[0].upper() + text[1:]
    return "Memory ran out."

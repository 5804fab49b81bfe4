"""One 2D image, any promptable model: encode once, predict as often as the prompts change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.errors import (
    InvalidPrompt,
    PointOutsideVolume,
    UnsupportedModel,
    UnsupportedVolume,
    in_words,
)
from napari_medtransformer.given import whole
from napari_medtransformer.models.base import ImageEmbedding, PromptableModel, Prompts
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.prompting.refining import Answers, mask_to_refine, refined_logits
from napari_medtransformer.volumes.intensity import Window, apply_window, default_window
from napari_medtransformer.volumes.numbers import numbers

# Beyond this a logit says nothing more, and a network's products stay within float32.
_MOST_LOGIT = 1e4


@dataclass(frozen=True, eq=False)
class Prediction:
    """The chosen mask of one object, and the model's other candidates.

    mask: (H, W) bool. logits: (H, W) float32, inside > 0. score: expected IoU of the chosen mask.
    candidates: (m, H, W) float32 logits; scores: (m,) float32; chosen: which of them.
    """

    candidates: np.ndarray
    scores: np.ndarray
    chosen: int

    @property
    def logits(self) -> np.ndarray:
        """(H, W) float32, inside > 0."""
        logits: np.ndarray = self.candidates[self.chosen]
        return logits

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        mask: np.ndarray = self.logits > 0
        return mask

    @property
    def score(self) -> float:
        """Expected IoU of the chosen mask, as the model estimates it."""
        return float(self.scores[self.chosen])

    def choose(self, candidate: int) -> Prediction:
        """The same prediction with another of its masks chosen, counted from 0. Raises InvalidPrompt."""
        number = whole(candidate, "a candidate's number", InvalidPrompt, least=0, most=len(self.scores) - 1)
        return Prediction(self.candidates, self.scores, number)


class ImagePredictor:
    """Answers prompts on one image at a time.

    Coordinates are native pixels (row, column); an integer is a pixel's centre; boxes are half-open.
    A model that `refines` answers point after point, as in a session: one that the answer to the box and the points
    before it contradicts is given with that answer, which is remembered until another image is set.
    """

    def __init__(self, model: PromptableModel) -> None:
        self.model = promptable(model)
        self._embedding: ImageEmbedding | None = None
        self._shape = (0, 0)
        self._answers = Answers()

    def set_image(self, image: np.ndarray, window: tuple[float, float] | None = None) -> None:
        """Encode an image. image: (H, W) in native intensities. window: (low, high); None finds one from the image.

        Raises UnsupportedVolume for anything but a non-empty 2D array of numbers.
        """
        image = numbers(image, "the image")
        if image.ndim != 2 or image.size == 0:
            raise UnsupportedVolume(
                f"an image of shape {image.shape} and type {image.dtype} was given; expected one channel of numbers."
            )
        windowed = apply_window(image, default_window(image) if window is None else checked_window(window))
        self._embedding = None  # a failed encoding must not leave the image before it
        self._embedding = self.model.encode(windowed)
        self._answers = Answers()
        self._shape = (image.shape[0], image.shape[1])

    def predict(
        self,
        points: Sequence[tuple[float, float]] | np.ndarray | None = None,
        labels: Sequence[int] | np.ndarray | None = None,
        box: Sequence[float] | np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> Prediction:
        """The mask of the object that the prompts mean.

        points: (y, x) each, in the order in which they were given. labels: 1 inside or 0 outside for each point; None:
        all inside. box: (y0, x0, y1, x1), half-open. mask_logits: (H, W), the logits of an earlier prediction to refine
        instead of the answer to the points before.
        The candidate with the best score is chosen. Raises PointOutsideVolume and InvalidPrompt.
        """
        if self._embedding is None:
            raise InvalidPrompt("no image was set; call set_image(image) first.")
        prompts = make_prompts(self._shape, points, labels, box, mask_logits)
        if self.model.refines and mask_logits is None:
            return self._in_turn(self._embedding, prompts)
        return predict(self.model, self._embedding, prompts)

    def _in_turn(self, embedding: ImageEmbedding, prompts: Prompts) -> Prediction:
        """The answer to a box and points, or to points, each after those before it."""
        # rounded to float32, a point may lie on the far edge of its pixel
        cells = np.floor(prompts.points_yx + 0.5).astype(int).clip(max=np.array(self._shape) - 1)
        pixels = [(y, x) for y, x in cells.tolist()]
        inside = (prompts.point_labels == 1).tolist()

        def asked(count: int) -> tuple[object, ...]:
            return prompts.points_yx[:count].tobytes(), prompts.point_labels[:count].tobytes(), prompts.box

        def ask(count: int, refined: np.ndarray | None) -> tuple[Prediction, np.ndarray]:
            logits = None if refined is None else refined_logits(refined)
            given = Prompts(prompts.points_yx[:count], prompts.point_labels[:count], prompts.box, logits)
            prediction = predict(self.model, embedding, given)
            mask = prediction.mask
            for pixel, label in zip(pixels[:count], inside, strict=False):  # as in a session, whatever was answered
                mask[pixel] = label
            self._answers.keep(asked(count), mask)
            return prediction, mask

        def answer(count: int, refined: np.ndarray | None) -> np.ndarray:
            known = self._answers.get(asked(count))
            return ask(count, refined)[1] if known is None else known

        first = 1 if prompts.box is None else 0
        to_refine = mask_to_refine(first, len(pixels), answer, lambda n, mask: bool(mask[pixels[n]]) != inside[n])
        return ask(len(pixels), to_refine)[0]


def promptable(model: object) -> PromptableModel:
    """`model` if it takes prompts. Raises UnsupportedModel."""
    if isinstance(model, PromptableModel):
        return model
    name = getattr(getattr(model, "card", None), "name", type(model).__name__)
    if isinstance(model, VolumePromptableModel):
        raise UnsupportedModel(
            f"{name} answers clicks in 3D, not on one image; use a PromptSession on a volume, or a 2D promptable model."
        )
    raise UnsupportedModel(f"{name} takes no prompts; choose a promptable model, or segment a whole volume with it.")


def predict(model: PromptableModel, embedding: ImageEmbedding, prompts: Prompts) -> Prediction:
    """Decode prompts and choose the candidate with the best score."""
    decoded = model.decode(embedding, prompts)
    return Prediction(decoded.logits, decoded.scores, int(np.argmax(decoded.scores)))


def make_prompts(
    shape: tuple[int, int],
    points: Sequence[tuple[float, float]] | np.ndarray | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    box: Sequence[float] | np.ndarray | None = None,
    mask_logits: np.ndarray | None = None,
) -> Prompts:
    """Checked prompts for an image of `shape` (H, W). Raises PointOutsideVolume and InvalidPrompt."""
    points_yx = _points(points)
    point_labels = np.ones(len(points_yx), np.int64)
    if labels is not None:
        point_labels = numbers(labels, "the points' labels", InvalidPrompt).reshape(-1)
    if len(point_labels) != len(points_yx):
        raise InvalidPrompt(f"{len(points_yx)} points came with {len(point_labels)} labels; give one each.")
    if not np.isin(point_labels, (0, 1)).all():
        raise InvalidPrompt(f"a point's label is 1 (inside) or 0 (outside), not {in_words(point_labels.tolist())}.")
    if not len(points_yx) and box is None and mask_logits is None:
        raise InvalidPrompt("there is nothing to predict from; give points, a box or mask_logits.")
    for y, x in points_yx:
        # A pixel's cell reaches half a pixel around its centre.
        if not (-0.5 <= y < shape[0] - 0.5 and -0.5 <= x < shape[1] - 0.5):
            raise PointOutsideVolume(
                f"the point ({y:g}, {x:g}) lies outside the image of {shape[0]} × {shape[1]} pixels; "
                f"rows run from 0 to {shape[0] - 1}, columns from 0 to {shape[1] - 1}."
            )
    return Prompts(
        points_yx.astype(np.float32),
        point_labels.astype(np.int64),
        None if box is None else _box(shape, box),
        None if mask_logits is None else _logits(shape, mask_logits),
    )


def checked_window(window: Sequence[float] | Window) -> tuple[float, float]:
    """(low, high) of a window of intensities. Raises InvalidPrompt for what is none."""
    if isinstance(window, Window):
        return window.low, window.high
    try:
        low, high = (float(end) for end in window)
    except (TypeError, ValueError) as error:
        raise InvalidPrompt(f"a window is two numbers (low, high), not {in_words(window)}.") from error
    if not (np.isfinite([low, high]).all() and low < high):
        raise InvalidPrompt(f"a window is (low, high) with low < high, both finite, not ({low:g}, {high:g}).")
    return low, high


def _logits(shape: tuple[int, int], mask_logits: np.ndarray) -> np.ndarray:
    """Logits of an earlier prediction, float32; limited to what that type can hold."""
    logits = numbers(mask_logits, "mask_logits", InvalidPrompt)
    if logits.shape != tuple(shape):
        raise InvalidPrompt(f"mask_logits have shape {logits.shape}; expected the image's {tuple(shape)}.")
    if not np.isfinite(logits).all():
        raise InvalidPrompt("mask_logits hold NaN or infinite values; give the logits of an earlier prediction.")
    return np.clip(logits, -_MOST_LOGIT, _MOST_LOGIT).astype(np.float32)


def _points(points: Iterable[tuple[float, float]] | np.ndarray | None) -> np.ndarray:
    if points is None:
        return np.zeros((0, 2))
    if isinstance(points, (Iterator, Set)):
        points = list(points)
    array = numbers(points, "a list of (y, x) points", InvalidPrompt).astype(np.float64)
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise InvalidPrompt(f"points are a list of finite (y, x) numbers, not an array of shape {array.shape}.")
    return array


def _box(shape: tuple[int, int], box: Sequence[float] | np.ndarray) -> tuple[float, float, float, float]:
    """The part of the box on the image."""
    try:
        y0, x0, y1, x1 = (float(edge) for edge in box)
    except (TypeError, ValueError) as error:
        raise InvalidPrompt(f"a box is four numbers (y0, x0, y1, x1), not {in_words(box)}.") from error
    if not (np.isfinite([y0, x0, y1, x1]).all() and y0 < y1 and x0 < x1):
        raise InvalidPrompt(f"the box ({y0:g}, {x0:g}, {y1:g}, {x1:g}) is empty; expected y0 < y1 and x0 < x1.")
    inside = (max(y0, 0.0), max(x0, 0.0), min(y1, float(shape[0])), min(x1, float(shape[1])))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise PointOutsideVolume(
            f"the box ({y0:g}, {x0:g}, {y1:g}, {x1:g}) lies outside the image of {shape[0]} × {shape[1]} pixels."
        )
    return inside

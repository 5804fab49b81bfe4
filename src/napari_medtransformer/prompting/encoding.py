"""Parts of a session as JSON with a table of masks beside it, for files and for the journal that autosave keeps."""

from __future__ import annotations

import io
import math
import zlib
from typing import Any

import numpy as np

from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.prompting.masks import Packed, PackedBlock, PackedMask
from napari_medtransformer.prompting.model_prompts import model_prompts
from napari_medtransformer.prompting.prompts import (
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    SliceKey,
    Zyx,
)
from napari_medtransformer.prompting.slice_model import PackedPrediction
from napari_medtransformer.prompting.state import Followed, SessionObject, SliceState


class MaskTable:
    """Masks by number, each distinct one once."""

    def __init__(self) -> None:
        self._numbers: dict[PackedMask, int] = {}

    def number(self, mask: PackedMask | None) -> int | None:
        """The mask's number; None for no mask."""
        return None if mask is None else self._numbers.setdefault(mask, len(self._numbers))

    def reference(self, mask: Packed | None) -> int | dict[str, Any] | None:
        """How JSON tells of a mask: its number, or the numbers of a block's slices and where they begin."""
        if isinstance(mask, PackedBlock):
            return {"start": mask.start, "slices": [self.number(one) for one in mask.slices]}
        return self.number(mask)

    def to_npz(self) -> bytes:
        """The table as a file of numpy's."""
        masks = list(self._numbers)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            deflated=np.frombuffer(b"".join(mask.deflated for mask in masks), np.uint8),
            lengths=np.array([len(mask.deflated) for mask in masks], np.int64),
            shapes=np.array([mask.shape for mask in masks], np.int64).reshape(-1, 2),
        )
        return buffer.getvalue()


def masks_of(npz: bytes) -> list[PackedMask]:
    """The masks of a table. Raises ValueError or KeyError if one is not what its shape promises."""
    with np.load(io.BytesIO(npz), allow_pickle=False) as arrays:
        deflated, lengths, shapes = arrays["deflated"], arrays["lengths"], arrays["shapes"]
    ends = np.cumsum(lengths)
    masks = []
    for end, length, (rows, columns) in zip(ends, lengths, shapes, strict=True):
        data = deflated[end - length : end].tobytes()
        expected = math.ceil(int(rows) * int(columns) / 8)
        # A few bytes can inflate to gigabytes: never more than the shape needs.
        if len(zlib.decompressobj().decompress(data, expected + 1)) != expected:
            raise ValueError("a mask does not fit its shape")
        masks.append(PackedMask((int(rows), int(columns)), data))
    return masks


def object_to_json(one: SessionObject) -> dict[str, Any]:
    """An object as JSON."""
    return {"object_id": one.object_id, "name": one.name, "class": one.class_name, "colour": one.colour}


def object_from_json(item: dict[str, Any]) -> SessionObject:
    """What object_to_json wrote; files of version 1 have no class and colour."""
    return SessionObject(
        int(item["object_id"]), str(item["name"]), str(item.get("class", "")), str(item.get("colour", ""))
    )


def followed_to_json(followed: Followed) -> list[dict[str, Any]]:
    """Which slices each object was followed from, as JSON."""
    return [
        {"object_id": object_id, "axis": axis, "seeds": {str(index): digest for index, digest in seeds.items()}}
        for (object_id, axis), seeds in followed.items()
    ]


def followed_from_json(items: list[dict[str, Any]]) -> Followed:
    """What followed_to_json wrote."""
    return {
        (int(one["object_id"]), int(one["axis"])): {int(i): str(digest) for i, digest in one["seeds"].items()}
        for one in items
    }


def slice_to_json(
    key: SliceKey, there: SliceState, prediction: PackedPrediction | None, table: MaskTable
) -> dict[str, Any]:
    """A slice's state and prediction as JSON; the masks go into the table."""
    return {
        "object_id": key.object_id,
        "axis": key.axis,
        "index": key.index,
        "prompts": [
            {"id": number, "axis": prompt.axis, **_prompt_to_json(prompt, table)} for number, prompt in there.prompts
        ],
        "base": table.reference(there.base),
        "shown": table.reference(there.shown),
        "candidate": there.candidate,
        "picked": None if there.picked is None else [there.picked[0], table.number(there.picked[1])],
        "changed": there.changed,
        "propagated": table.number(there.propagated),
        "edited": table.number(there.edited),
        "model": there.model,
        "prediction": None
        if prediction is None
        else {
            "masks": [table.reference(mask) for mask in prediction.masks],
            "scores": list(prediction.scores),
            "best": prediction.best,
        },
    }


def slice_from_json(
    item: dict[str, Any], masks: list[PackedMask], shape: tuple[int, int, int]
) -> tuple[SliceKey, SliceState, PackedPrediction | None]:
    """What slice_to_json wrote, for a volume of `shape` (z, y, x).

    Raises ValueError, KeyError, TypeError, IndexError or InvalidPrompt for what cannot be.
    """
    key = SliceKey(int(item["object_id"]), int(item["axis"]), int(item["index"]))
    prompts = tuple((int(p["id"]), _prompt_from_json(p, key, masks)) for p in item["prompts"])
    _check_prompts(key, [prompt for _, prompt in prompts], shape)
    # a block's slices are axial
    rows, columns = (n for axis, n in enumerate(shape) if axis != (0 if key.in_3d else key.axis))

    def mask(number: int | None) -> PackedMask | None:
        if number is None:
            return None
        found = masks[number] if number >= 0 else None
        if found is None or found.shape != (rows, columns):
            raise ValueError(f"a mask does not fit slices of {(rows, columns)}")
        return found

    def packed(said: int | dict[str, Any] | None) -> Packed | None:
        if not key.in_3d or said is None:
            return mask(None if said is None else _number(said))
        if not isinstance(said, dict):
            raise ValueError("an answer in 3D has no mask of one slice")
        start, slices = int(said["start"]), tuple(one for one in map(mask, said["slices"]) if one is not None)
        if start < 0 or not 0 < len(slices) <= shape[0] - start:
            raise ValueError(f"slices {start} to {start + len(slices) - 1} do not fit a volume of {shape}")
        return PackedBlock(start, slices)

    prediction = None
    if item["prediction"] is not None:
        found = item["prediction"]
        scores = tuple(float(score) for score in found["scores"])
        candidates = tuple(one for one in map(packed, found["masks"]) if one is not None)
        prediction = PackedPrediction(candidates, scores, int(found["best"]))
        if not 0 <= prediction.best < len(scores) == len(candidates):
            raise ValueError("a prediction's masks and scores do not match")
    candidate = None if item["candidate"] is None else int(item["candidate"])
    if candidate is not None and (prediction is None or not 0 <= candidate < len(prediction.masks)):
        raise ValueError("a chosen mask is not there")
    picked, said = None, item.get("picked")
    if said is not None:
        count, chosen = int(said[0]), mask(int(said[1]))
        if chosen is None or key.in_3d or not 0 < count < len(prompts):
            raise ValueError("a mask was picked where no prompt follows")
        picked = count, chosen
    if key.in_3d and (key.index or not prompts or item["propagated"] is not None or item.get("edited") is not None):
        raise ValueError("an answer in 3D has prompts, and no masks of slices")
    there = SliceState(
        prompts=prompts,
        base=packed(item.get("base")),
        shown=packed(item.get("shown")),
        candidate=candidate,
        picked=picked,
        propagated=mask(item["propagated"]),
        edited=mask(item.get("edited")),
        model=int(item.get("model", 0)),
        changed=int(item["changed"]),
    )
    return key, there, prediction


def _number(said: Any) -> int:
    if isinstance(said, dict):
        raise ValueError("a slice has no mask in 3D")
    return int(said)


def _check_prompts(key: SliceKey, prompts: list[Prompt], shape: tuple[int, int, int]) -> None:
    """Raises ValueError, InvalidPrompt or PointOutsideVolume for prompts that cannot be there."""
    if key.in_3d and any(isinstance(prompt, BoxPrompt | MaskPrompt) for prompt in prompts):
        raise ValueError("a box or a mask of a slice was given in 3D")
    if any(prompt.key.object_id != key.object_id or (not key.in_3d and prompt.key != key) for prompt in prompts):
        raise ValueError(f"a prompt is not on its slice {key.index} of axis {key.axis}")
    for where in {prompt.key for prompt in prompts} | (set() if key.in_3d else {key}):
        if not 0 <= where.index < shape[where.axis]:
            raise ValueError(f"slice {where.index} of axis {where.axis} is outside the volume")
        rows, columns = (n for axis, n in enumerate(shape) if axis != where.axis)
        here = [prompt for prompt in prompts if prompt.key == where]
        if here:
            model_prompts((rows, columns), here)


def _prompt_to_json(prompt: Prompt, table: MaskTable) -> dict[str, Any]:
    if isinstance(prompt, PointPrompt):
        return {"kind": "point", "position_zyx": list(prompt.position_zyx), "positive": prompt.positive}
    if isinstance(prompt, BoxPrompt):
        return {"kind": "box", "start_zyx": list(prompt.start_zyx), "stop_zyx": list(prompt.stop_zyx)}
    if isinstance(prompt, LassoPrompt):
        vertices = [list(vertex) for vertex in prompt.vertices_zyx]
        return {"kind": "lasso", "vertices_zyx": vertices, "positive": prompt.positive}
    if isinstance(prompt, ScribblePrompt):
        pixels = table.number(prompt.pixels)
        return {"kind": "scribble", "pixels": pixels, "index": prompt.index, "positive": prompt.positive}
    return {"kind": "mask", "mask": table.number(prompt.mask), "index": prompt.index}


def _prompt_from_json(item: dict[str, Any], key: SliceKey, masks: list[PackedMask]) -> Prompt:
    def triple(values: Any) -> Zyx:
        z, y, x = (float(p) for p in values)
        return z, y, x

    # files before version 3 leave the axis to the slice
    kind, where = item["kind"], (key.object_id, int(item.get("axis", key.axis)))
    if kind == "point":
        return PointPrompt(triple(item["position_zyx"]), bool(item["positive"]), *where)
    if kind == "box":
        return BoxPrompt(triple(item["start_zyx"]), triple(item["stop_zyx"]), *where)
    if kind == "lasso":
        return LassoPrompt(tuple(triple(one) for one in item["vertices_zyx"]), bool(item["positive"]), *where)
    if kind == "scribble":
        return ScribblePrompt(masks[item["pixels"]], int(item["index"]), bool(item["positive"]), *where)
    if kind == "mask":
        return MaskPrompt(masks[item["mask"]], int(item["index"]), *where)
    raise InvalidPrompt(f"there is no kind of prompt {kind!r}")

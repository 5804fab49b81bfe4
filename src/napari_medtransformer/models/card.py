"""What is known about a model before it is loaded: one frozen record per model, read without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from napari_medtransformer.errors import UnsupportedModel

T = TypeVar("T")

BUNDLED = Path(__file__).parent / "bundled"
"""The folder of the weights that come with this package, each with a page about them beside it."""

Task = Literal["promptable", "automatic"]
Fit = Literal["pad", "stretch"]

_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BUILDER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class WeightsSource:
    """Where published weights come from.

    url: http(s) address. filename: name in the cache folder. sha256: 64 lower-case hex digits, or None where the
    publisher gives none: then the hash is pinned at the first download. bytes: size of the file, None if unknown.
    """

    url: str
    filename: str
    sha256: str | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"weights come from an http(s) address, not {self.url!r}")
        if not self.filename or "/" in self.filename or "\\" in self.filename or self.filename.startswith("."):
            raise ValueError(f"a weights file name has no folder and no leading dot, unlike {self.filename!r}")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 is 64 lower-case hex digits or None, not {self.sha256!r}")
        if self.bytes is not None and self.bytes <= 0:
            raise ValueError(f"a weights file has a positive size, not {self.bytes}")


@dataclass(frozen=True)
class InputContract:
    """What the network sees.

    size: pixels or voxels per axis of its input, (y, x) or (z, y, x). channels: how many of them are fed.
    spacing_mm: the voxel size it was trained for, per axis, or None if any. intensities: how native values become the
    network's, in words for a person. fit: how an image comes to that size; "pad" scales its longest side and pads the
    rest, "stretch" scales each axis by itself. mean, std: per channel, what intensities in [0, 1] are normalised with
    after that; empty for as they are. clip: the native intensities that become 0 and 1, for models of a scale that
    means the same everywhere, such as CT's; None: as the family does by itself. extent_mm: per axis, the largest field
    of view it was trained on, None where any will do. mirrored: the axes (0 z, 1 y, 2 x) along which it was also shown
    mirrored in training, None where nobody wrote them down.
    """

    size: tuple[int, ...]
    channels: int = 1
    spacing_mm: tuple[float, ...] | None = None
    intensities: str = "windowed to [0, 1]: CT by Hounsfield presets, others by robust percentiles"
    fit: Fit = "pad"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    clip: tuple[float, float] | None = None
    extent_mm: tuple[float, ...] | None = None
    mirrored: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise ValueError(f"an input has 2 or 3 positive axes, not {self.size}")
        if self.channels < 1:
            raise ValueError(f"an input has at least one channel, not {self.channels}")
        if self.spacing_mm is not None and (len(self.spacing_mm) != len(self.size) or min(self.spacing_mm) <= 0):
            raise ValueError(f"the spacing {self.spacing_mm} does not fit an input of {self.size}")
        if self.extent_mm is not None and (len(self.extent_mm) != len(self.size) or min(self.extent_mm) <= 0):
            raise ValueError(f"the field of view {self.extent_mm} does not fit an input of {self.size}")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip needs low < high, unlike {self.clip}")
        if self.mirrored is not None and not set(self.mirrored) <= set(range(len(self.size))):
            raise ValueError(f"the mirrored axes {self.mirrored} are not among those of an input of {self.size}")
        if self.fit not in ("pad", "stretch"):
            raise ValueError(f"an image is fitted by 'pad' or 'stretch', not {self.fit!r}")
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.channels) or min(self.std, default=1) <= 0:
            raise ValueError(f"mean {self.mean} and deviation {self.std} do not fit {self.channels} channels")


@dataclass(frozen=True)
class LabelInfo:
    """One structure an automatic model names. value: in the label volume. color: red, green, blue in [0, 1]."""

    value: int
    name: str
    color: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 0 < self.value <= 65535:
            raise ValueError(f"a label's value lies in 1..65535, not {self.value} ({self.name})")
        if any(not 0 <= c <= 1 for c in self.color):
            raise ValueError(f"a colour lies in [0, 1], unlike {self.color} ({self.name})")


@dataclass(frozen=True)
class ModelCard:
    """A model, before any of it is loaded.

    name: how users call it (lower case, digits, - and .). family: its architecture's family, one adapter each.
    architecture: which member of the family, e.g. "vit-b". builder: "module:function" that makes the model, imported
    only then (see registry.Builder). weights: a WeightsSource to download, or the file name of weights inside
    models/bundled, or the Path of a file of the user's, or None: then only a path or "random" loads it.
    memory_bytes: estimated peak of one prediction in float32, parameters included. air_below: native intensity below
    which everything is air, so that an automatic run may leave out windows that hold nothing else; None where nothing
    may be left out. training: what it was trained on, in words for a person.
    """

    name: str
    title: str
    family: str
    builder: str
    task: Task
    dimensions: int
    input: InputContract
    licence: str
    citation: str
    description: str
    architecture: str = ""
    modalities: tuple[str, ...] = ()
    anatomy: tuple[str, ...] = ()
    labels: tuple[LabelInfo, ...] = field(default=())
    weights: WeightsSource | Path | str | None = None
    memory_bytes: int | None = None
    air_below: float | None = None
    training: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a model's name has lower-case letters, digits, '-' and '.', unlike {self.name!r}")
        if not _BUILDER.fullmatch(self.builder):
            raise ValueError(f"{self.name}: a builder reads 'module:function', not {self.builder!r}")
        if self.task not in ("promptable", "automatic"):
            raise ValueError(f"{self.name}: a task is 'promptable' or 'automatic', not {self.task!r}")
        if self.dimensions not in (2, 3) or len(self.input.size) != self.dimensions:
            raise ValueError(f"{self.name}: {self.dimensions} dimensions do not fit an input of {self.input.size}")
        for what in ("title", "family", "licence", "citation", "description"):
            if not getattr(self, what).strip():
                raise ValueError(f"{self.name}: the card has no {what}")
        if isinstance(self.weights, str) and ("/" in self.weights or not self.weights.endswith(".safetensors")):
            raise ValueError(f"{self.name}: bundled weights are a *.safetensors file name, not {self.weights!r}")
        if self.task == "automatic" and not self.labels:
            raise ValueError(f"{self.name}: an automatic model names its labels")
        if len({label.value for label in self.labels}) != len(self.labels):
            raise ValueError(f"{self.name}: two labels share a value")
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise ValueError(f"{self.name}: memory is positive, not {self.memory_bytes}")


def architecture_of(card: ModelCard, known: Mapping[str, T], what: str) -> T:
    """What is known of a card's architecture. what: how its family is called in a message.

    Raises UnsupportedModel that lists the architectures there are.
    """
    if card.architecture not in known:
        raise UnsupportedModel(f"{card.name}: no {what} is called {card.architecture!r}; there are {', '.join(known)}.")
    return known[card.architecture]

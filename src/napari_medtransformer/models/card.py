"""What is known about a model before it is loaded: one frozen record per model, read without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from napari_medtransformer.errors import InvalidOption, UnsupportedModel, in_words
from napari_medtransformer.given import one_of, real, reals, record, text, whole, wholes

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
    Raises InvalidOption.
    """

    url: str
    filename: str
    sha256: str | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        if not text(self.url, "the address of weights").startswith(("https://", "http://")):
            raise InvalidOption(f"weights come from an http(s) address, not {in_words(self.url)}.")
        if (
            not text(self.filename, "the name of a weights file")
            or "/" in self.filename
            or "\\" in self.filename
            or self.filename.startswith(".")
        ):
            raise InvalidOption(
                f"a weights file name has no folder and no leading dot, unlike {in_words(self.filename)}."
            )
        if self.sha256 is not None and not _SHA256.fullmatch(text(self.sha256, "sha256")):
            raise InvalidOption(f"sha256 is 64 lower-case hex digits or None, not {in_words(self.sha256)}.")
        if self.bytes is not None:
            whole(self.bytes, "the size of a weights file in bytes", least=1)


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
    mirrored in training, None where nobody wrote them down. Raises InvalidOption.
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
        axes = len(wholes(self.size, "the sizes of an input"))
        if axes not in (2, 3) or min(self.size) < 1:
            raise InvalidOption(f"an input has 2 or 3 positive axes, not {in_words(self.size)}.")
        whole(self.channels, "the number of an input's channels", least=1)
        for what, lengths in (("voxel size", self.spacing_mm), ("field of view", self.extent_mm)):
            if lengths is not None and min(reals(lengths, axes, f"the millimetres of an input's {what}")) <= 0:
                raise InvalidOption(f"an input's {what} is above 0 mm, not {lengths}.")
        if self.clip is not None:
            low, high = reals(self.clip, 2, "the intensities that become 0 and 1")
            if not low < high:
                raise InvalidOption(f"clip needs low < high, unlike {self.clip}.")
        if self.mirrored is not None and not set(wholes(self.mirrored, "mirrored axes")) <= set(range(axes)):
            raise InvalidOption(f"the mirrored axes {self.mirrored} are not among those of an input of {self.size}.")
        one_of(self.fit, ("pad", "stretch"), "how an image is fitted")
        text(self.intensities, "how native intensities become the network's")
        if not isinstance(self.mean, tuple) or not isinstance(self.std, tuple):
            raise InvalidOption(f"means and deviations are tuples, not {in_words((self.mean, self.std))}.")
        if self.mean or self.std:
            reals(self.mean, self.channels, "the means of an input's channels")
            if min(reals(self.std, self.channels, "the deviations of an input's channels")) <= 0:
                raise InvalidOption(f"the deviations of an input's channels are above 0, not {self.std}.")


@dataclass(frozen=True)
class LabelInfo:
    """One structure an automatic model names. value: in the label volume. color: red, green, blue in [0, 1].

    Raises InvalidOption.
    """

    value: int
    name: str
    color: tuple[float, float, float]

    def __post_init__(self) -> None:
        whole(self.value, "a label's value", least=1, most=65535)
        text(self.name, "a label's name")
        if any(not 0 <= c <= 1 for c in reals(self.color, 3, "the red, green and blue of a label")):
            raise InvalidOption(f"a colour lies in [0, 1], unlike {self.color} ({self.name}).")


@dataclass(frozen=True)
class ModelCard:
    """A model, before any of it is loaded.

    name: how users call it (lower case, digits, - and .). family: its architecture's family, one adapter each.
    architecture: which member of the family, e.g. "vit-b". builder: "module:function" that makes the model, imported
    only then (see registry.Builder). weights: a WeightsSource to download, or the file name of weights inside
    models/bundled, or the Path of a file of the user's, or None: then only a path or "random" loads it.
    memory_bytes: estimated peak of one prediction in float32, parameters included. air_below: native intensity below
    which everything is air, so that an automatic run may leave out windows that hold nothing else; None where nothing
    may be left out. training: what it was trained on, in words for a person. Raises InvalidOption.
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
        if not _NAME.fullmatch(text(self.name, "a model's name")):
            raise InvalidOption(
                f"a model's name has lower-case letters, digits, '-' and '.', unlike {in_words(self.name)}."
            )
        if not _BUILDER.fullmatch(text(self.builder, f"{self.name}: a builder")):
            raise InvalidOption(f"{self.name}: a builder reads 'module:function', not {in_words(self.builder)}.")
        one_of(self.task, ("promptable", "automatic"), f"{self.name}: a task")
        record(self.input, InputContract, f"{self.name}: an InputContract")
        if whole(self.dimensions, f"{self.name}: its number of dimensions") != len(self.input.size):
            raise InvalidOption(f"{self.name}: {self.dimensions} dimensions do not fit an input of {self.input.size}.")
        for what in ("title", "family", "licence", "citation", "description"):
            if not text(getattr(self, what), f"{self.name}: the card's {what}").strip():
                raise InvalidOption(f"{self.name}: the card has no {what}.")
        for what in ("architecture", "training"):
            text(getattr(self, what), f"{self.name}: the card's {what}")
        for what, kind in (("modalities", str), ("anatomy", str), ("labels", LabelInfo)):
            several = getattr(self, what)
            if not isinstance(several, tuple) or not all(isinstance(each, kind) for each in several):
                raise InvalidOption(f"{self.name}: {what} are a tuple of {kind.__name__}, not {in_words(several)}.")
        if self.weights is not None and not isinstance(self.weights, WeightsSource | Path | str):
            raise InvalidOption(
                f"{self.name}: weights are a WeightsSource, a Path, a file name or None, not {in_words(self.weights)}."
            )
        if isinstance(self.weights, str) and ("/" in self.weights or not self.weights.endswith(".safetensors")):
            raise InvalidOption(
                f"{self.name}: bundled weights are a *.safetensors file name, not {in_words(self.weights)}."
            )
        if self.task == "automatic" and not self.labels:
            raise InvalidOption(f"{self.name}: an automatic model names its labels; give labels.")
        if len({label.value for label in self.labels}) != len(self.labels):
            raise InvalidOption(f"{self.name}: two labels share a value; give each its own.")
        if self.memory_bytes is not None:
            whole(self.memory_bytes, f"{self.name}: its memory in bytes", least=1)
        if self.air_below is not None:
            real(self.air_below, f"{self.name}: the intensity below which all is air")


def architecture_of(card: ModelCard, known: Mapping[str, T], what: str) -> T:
    """What is known of a card's architecture. what: how its family is called in a message.

    Raises UnsupportedModel that lists the architectures there are.
    """
    if card.architecture not in known:
        raise UnsupportedModel(f"{card.name}: no {what} is called {card.architecture!r}; there are {', '.join(known)}.")
    return known[card.architecture]

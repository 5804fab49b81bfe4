"""The one tree of errors. Each message says what was given, what was expected and what to do."""

from __future__ import annotations


class MedTransformerError(Exception):
    """Base of every error that a user's input can cause; its text is one line, fit for a notification."""


class UnreadableFile(MedTransformerError):
    """A file is missing, truncated, not permitted or not of the format it claims."""


class UnsupportedVolume(MedTransformerError):
    """A file was read but is no volume that can be shown: wrong dimensions, empty axes, no usable geometry."""


class CannotWrite(MedTransformerError):
    """An output could not be written whole; nothing was left behind."""


class PointOutsideVolume(MedTransformerError):
    """A coordinate lies outside the volume or image it was given for."""


class InvalidPrompt(MedTransformerError):
    """A prompt is malformed: an empty box, labels that do not match points, nothing to predict from."""


class UnknownModel(MedTransformerError):
    """No model of that name; the message lists near matches."""


class DuplicateModel(MedTransformerError):
    """Two cards claim one name."""


class UnreadableWeights(MedTransformerError):
    """Weights are missing, unsafe to load, or do not fit the architecture."""


class UnsupportedModel(MedTransformerError):
    """A model was asked for what it cannot do, such as clicks for an automatic one."""


class OutOfMemory(MedTransformerError):
    """Memory did not suffice, for any smaller plan there was."""


class NothingCaptured(MedTransformerError):
    """A probe saw no attention call of the sites it was asked for."""


class UnknownSite(MedTransformerError):
    """No attention site of that name; the message lists near matches."""


class QueryOutOfGrid(MedTransformerError):
    """A query token or voxel lies outside the site's query grid."""


class InvalidSession(MedTransformerError):
    """A saved session is damaged or belongs to another volume or model."""


class ClusterUnreachable(MedTransformerError):
    """No cluster answers at an address, or one that cannot be worked with: no workers, other versions."""


class ClusterLost(MedTransformerError):
    """A cluster went away, or its workers did, before the work was done; it can be done here instead."""


class InvalidOption(MedTransformerError, ValueError):
    """An option, a setting or an argument is of another type, out of range, or does not fit the model or the volume."""


def in_words(given: object) -> str:
    """What a user gave, for a message: on one line, and not longer than a line."""
    text = " ".join(repr(given).split())
    return text if len(text) <= 80 else f"{text[:77]}..."

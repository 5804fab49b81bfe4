"""Names and colours of labels: the record, and its CSV and JSON forms."""

from __future__ import annotations

import colorsys
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_medtransformer.errors import CannotWrite, InvalidOption, UnreadableFile, in_words
from napari_medtransformer.files import file_to_write, replacing
from napari_medtransformer.given import path as path_of
from napari_medtransformer.given import reals, whole
from napari_medtransformer.given import text as text_of

Color = tuple[float, float, float]
# Successive hues that far apart never come close (the golden ratio's conjugate).
_HUE_STEP = 0.61803398875


@dataclass(frozen=True)
class Label:
    """One label of a segmentation. number: its value in the array, from 1. color: red, green, blue in [0, 1].

    Raises InvalidOption.
    """

    number: int
    name: str
    color: Color

    def __post_init__(self) -> None:
        whole(self.number, "a label's number (0 is background)", least=1)
        text_of(self.name, "a label's name")
        if not all(0 <= part <= 1 for part in reals(self.color, 3, "a label's red, green and blue")):
            raise InvalidOption(f"a colour is red, green, blue in [0, 1], not {in_words(self.color)}.")


LabelNames = Mapping[int, str] | Sequence[Label]


def label_color(number: int) -> Color:
    """A distinct colour for a label that has none of its own, always the same for the same number."""
    return colorsys.hsv_to_rgb(number * _HUE_STEP % 1, 0.65, 0.95)


def label_table(numbers: Iterable[int], names: LabelNames | None = None) -> list[Label]:
    """One record per number, ascending; names and colours from `names` where it has them, made up otherwise."""
    known = {label.number: label for label in as_labels(names)}
    return [
        known.get(number) or Label(number, f"label {number}", label_color(number)) for number in sorted(set(numbers))
    ]


def as_labels(names: LabelNames | None) -> list[Label]:
    """Names by number, or records, as records. Raises InvalidOption for what is neither."""
    if names is None:
        return []
    try:
        if isinstance(names, Mapping):
            return [Label(int(number), str(name), label_color(int(number))) for number, name in names.items()]
        records = list(names)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"the names of labels are {{number: name}} with numbers from 1: {error}.") from error
    if not all(isinstance(one, Label) for one in records):
        raise InvalidOption("the names of labels are {number: name}, or a list of Label records.")
    return records


def read_label_table(path: str | os.PathLike[str]) -> list[Label]:
    """Labels from a CSV with columns number, name and optionally color ('#rrggbb'), or from JSON.

    JSON: {"1": "liver", ...}, or a list of objects with the same keys as the CSV's columns.
    Raises UnreadableFile that names the line or entry at fault.
    """
    file = path_of(path, "a table of labels", UnreadableFile)
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows = _json_rows(text) if file.suffix.lower() == ".json" else _csv_rows(text)
    except OSError as error:
        raise UnreadableFile(f"the table of labels {file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{file} is no table of labels: it is no text; expected .csv or .json.") from error
    except ValueError as error:
        raise UnreadableFile(f"{file} is no table of labels: {' '.join(str(error).split())}.") from error
    labels = []
    for place, row in enumerate(rows, 1):
        try:
            number = int(row["number"])
            color = _color(row["color"]) if row.get("color") else label_color(number)
            labels.append(Label(number, str(row["name"]), color))
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableFile(
                f"{file.name} is no table of labels: entry {place} is {in_words(row)}; expected number, name and "
                "perhaps color as #rrggbb."
            ) from error
    return labels


def write_label_table(labels: Iterable[Label], path: str | os.PathLike[str], **columns: Mapping[int, Any]) -> Path:
    """Write labels as CSV or JSON, by the suffix; `columns` are further values by label number, such as volume_ml.

    NaN and infinities, which JSON does not know, are null there. Raises CannotWrite for another suffix or when
    the system refuses, InvalidOption for what are no labels or columns.
    """
    target = table_path(path)
    if isinstance(labels, Mapping) or labels is None:
        raise InvalidOption(f"a table has a list of Label records, not {in_words(labels)}.")
    labels = as_labels(list(labels) if isinstance(labels, Iterable) else labels)
    for column, values in columns.items():
        if not isinstance(values, Mapping):
            raise InvalidOption(f"the column {column} is a mapping by label number, not {in_words(values)}.")
    rows = [
        {"number": label.number, "name": label.name, "color": hex_color(label.color)}
        | {column: values.get(label.number, "") for column, values in columns.items()}
        for label in labels
    ]
    if target.suffix.lower() == ".json":
        known = [{name: None if _is_no_number(value) else value for name, value in row.items()} for row in rows]
        text = json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, ["number", "name", "color", *columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    with replacing(target) as stream:
        stream.write(text.encode())
    return target


def table_path(path: str | os.PathLike[str]) -> Path:
    """`path` if a table of labels can be written there. Raises CannotWrite."""
    target = path_of(path, "a table of labels", CannotWrite)
    if target.suffix.lower() not in (".csv", ".json"):
        raise CannotWrite(f"{target.name or target} has no suffix of a table; use .csv or .json.")
    return file_to_write(target)


def hex_color(color: Color) -> str:
    """'#rrggbb'."""
    return "#" + "".join(f"{round(part * 255):02x}" for part in color)


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _color(text: str) -> Color:
    digits = str(text).removeprefix("#")
    if len(digits) != 6:
        raise ValueError(f"{text} is no colour")
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def _json_rows(text: str) -> list[dict[str, Any]]:
    content = json.loads(text)
    if isinstance(content, dict):
        return [{"number": number, "name": name} for number, name in content.items()]
    if not isinstance(content, list):
        raise ValueError("expected an object or a list")
    return content


def _csv_rows(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    if not {"number", "name"} <= set(reader.fieldnames or ()):
        raise ValueError("expected the columns number and name in its first line")
    return list(reader)

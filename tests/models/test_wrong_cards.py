"""A card, a name or an option of another type is one error of this package, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from wrong_values import assert_refused

from napari_medtransformer.errors import InvalidOption, UnreadableFile
from napari_medtransformer.models import InputContract, LabelInfo, WeightsSource, find_card, load_model, register
from napari_medtransformer.models.card_files import read_card, write_card
from napari_medtransformer.models.registry import unregister

CARD = find_card("medt-hippocampus")
# What of WRONG is right there, for fields where something is.
RIGHT = {
    "card title": "text",
    "card family": "text",
    "card licence": "text",
    "card citation": "text",
    "card description": "text",
    "card architecture": "text",
    "card training": "text",
    "card weights": "None",
    "card memory_bytes": "None",
    "card air_below": "None half",
    "input spacing_mm": "None",
    "input clip": "None",
    "input extent_mm": "None",
    "input mirrored": "None",
    "input intensities": "text",
    "label name": "text",
    "source sha256": "None",
    "source bytes": "None",
    "source filename": "text",
}
RECORDS = {
    "card": CARD,
    "input": CARD.input,
    "label": LabelInfo(1, "liver", (0.0, 1.0, 0.0)),
    "source": WeightsSource("https://example.org/weights.pth", "weights.pth"),
}
FIELDS = [(kind, field) for kind, record in RECORDS.items() for field in record.__dataclass_fields__]


@pytest.mark.parametrize("kind, field", FIELDS)
def test_a_field_of_another_type_makes_no_card(kind: str, field: str) -> None:
    right = RIGHT.get(f"{kind} {field}", "")
    assert_refused(lambda x: replace(RECORDS[kind], **{field: x}), right, error=InvalidOption)


CALLS = {
    "name": (find_card, ""),
    "card": (register, ""),
    "card taken back": (unregister, ""),
    "model": (load_model, ""),
    "weights": (lambda x: load_model("medt-hippocampus", x), "None"),
    "device": (lambda x: load_model("medt-hippocampus", "random", x), ""),
    "number format": (lambda x: load_model("medt-hippocampus", "random", "cpu", dtype=x), ""),
    "seed": (lambda x: load_model("medt-hippocampus", "random", "cpu", seed=x), ""),
    "who is told": (lambda x: load_model("medt-hippocampus", "random", "cpu", on_progress=x), "None type"),
    "who is told of less": (lambda x: load_model("medt-hippocampus", "random", "cpu", on_smaller=x), "None type"),
}


@pytest.mark.parametrize("called", CALLS)
def test_a_model_is_asked_for_by_name_and_options_of_their_types(called: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, right = CALLS[called]
    assert_refused(call, right)


def test_means_and_deviations_are_one_for_each_channel() -> None:
    for mean, std in (((0.5,), ()), ((), (0.5,)), ((0.5, 0.5), (1.0, 1.0)), ((0.5,), (0.0,))):
        with pytest.raises(InvalidOption):
            InputContract((8, 8), mean=mean, std=std)
    assert InputContract((8, 8), channels=2, mean=(0.1, 0.2), std=(1.0, 2.0)).std == (1.0, 2.0)


def test_a_card_in_a_file_names_no_function_of_just_any_package(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    path = tmp_path / "mine.json"
    write_card(replace(CARD, name="mine", builder="os:getcwd", weights=tmp_path / "mine.safetensors"), path)
    with pytest.raises(UnreadableFile, match="os:getcwd, which is of no installed package that offers models"):
        load_model(str(path))
    write_card(replace(CARD, name="mine", weights=tmp_path / "mine.safetensors"), path)
    assert read_card(path).builder == CARD.builder

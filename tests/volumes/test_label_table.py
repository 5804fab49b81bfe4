"""Names and colours of labels: CSV, JSON and 3D Slicer's .seg.nrrd."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medtransformer.errors import CannotWrite, UnreadableFile
from napari_medtransformer.volumes import (
    Label,
    Volume,
    file_values,
    read_label_names,
    read_label_table,
    read_labels,
    write_label_table,
    write_labels,
)
from napari_medtransformer.volumes.label_table import label_color, label_table
from napari_medtransformer.volumes.nrrd import header_fields

LABELS = [Label(1, "liver", (1.0, 0.0, 0.2)), Label(5, "Milz, “groß”", (0.0, 0.4, 0.6))]


# Of 3D Slicer: where segments overlap, its files have layers, and a value may stand for one segment in each of them.
LAYERED = """NRRD0004
type: unsigned char
dimension: 4
space: left-posterior-superior
sizes: 2 4 5 6
space directions: none (0.7,0,0) (0,0.8,0) (0,0,2.5)
kinds: list domain domain domain
encoding: raw
space origin: (1,2,3)
Segment0_ID:=Segment_1
Segment0_Name:=liver
Segment0_Layer:=0
Segment0_LabelValue:=1
Segment0_Color:=1 0 0
Segment1_ID:=Segment_2
Segment1_Name:=lesion
Segment1_Layer:=1
Segment1_LabelValue:=1
Segment1_Color:=0 1 0
Segment2_ID:=Segment_3
Segment2_Name:=spleen
Segment2_Layer:=0
Segment2_LabelValue:=2
Segment2_Color:=0 0 1

"""


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    layers = np.zeros((2, 4, 5, 6), np.uint8)
    layers[0, 1:3], layers[1, 1, 2, 3:5], layers[1, 3, 4, 5], layers[0, 3, 0] = 1, 1, 1, 2
    (tmp_path / "organs.seg.nrrd").write_bytes(LAYERED.encode() + layers.tobytes(order="F"))
    return tmp_path / "organs.seg.nrrd"


@pytest.mark.parametrize("lazy", [False, True])
def test_segments_in_layers_become_one_volume_and_overlaps_are_said(
    layered: Path, monkeypatch: pytest.MonkeyPatch, lazy: bool
) -> None:
    if lazy:
        monkeypatch.setattr(file_values, "LAZY_BYTES", 1)
    with pytest.warns(UserWarning, match=r"organs\.seg\.nrrd has segments that overlap in 2 voxels"):
        labels = read_labels(layered)
    expected = np.zeros((4, 5, 6), np.uint8)
    expected[1:3] = 1
    expected[1, 2, 3:5] = expected[3, 4, 5] = 2
    expected[3, 0] = 3
    assert np.array_equal(labels.grid.to_file_order(labels.data), expected)
    assert [(label.number, label.name) for label in read_label_names(layered)] == [
        (1, "liver"),
        (2, "lesion"),
        (3, "spleen"),
    ]
    with pytest.raises(CannotWrite, match="itself"):  # it would lose what lies under other segments
        write_labels(labels.data, labels, layered)


def test_a_segment_in_a_layer_that_is_not_there_is_damage(layered: Path) -> None:
    layered.write_bytes(layered.read_bytes().replace(b"Segment1_Layer:=1", b"Segment1_Layer:=2"))
    with pytest.raises(
        UnreadableFile, match=r"organs\.seg\.nrrd is damaged: it has 2 layers, and lesion is in layer 2"
    ):
        read_labels(layered)


@pytest.mark.parametrize("name", ["labels.csv", "labels.json"])
def test_a_table_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    path = write_label_table(LABELS, tmp_path / name, volume_ml={1: 1500.5})
    assert read_label_table(path) == LABELS
    rows = json.loads(path.read_text()) if name.endswith("json") else list(csv.DictReader(path.open(encoding="utf-8")))
    assert [str(row["volume_ml"]) for row in rows] == ["1500.5", ""]


def test_plain_names_by_number_are_a_table(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('{"3": "aorta"}')
    assert read_label_table(tmp_path / "names.json") == [Label(3, "aorta", label_color(3))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "value,name\n1,x\n"),
        ("a.csv", "number,name\nx,liver\n"),
        ("a.csv", "number,name,color\n1,liver,red\n"),
        ("a.json", "{"),
        ("a.json", "3"),
        ("a.json", "[1]"),
        ("a.json", '{"0": "background"}'),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UnreadableFile, match="is no table of labels"):
        read_label_table(tmp_path / name)


def test_an_entry_that_is_no_label_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"total": {str(n): f"structure {n}" for n in range(200)}}))
    with pytest.raises(UnreadableFile, match="entry 1 is {'number': 'total'") as raised:
        read_label_table(tmp_path / "labels.json")
    assert len(str(raised.value)) < 250


def test_a_table_of_another_suffix_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"use \.csv or \.json"):
        write_label_table(LABELS, tmp_path / "labels.txt")


@given(st.sets(st.integers(1, 200), max_size=40))
def test_labels_without_names_get_distinct_colours(numbers) -> None:
    table = label_table(numbers, LABELS)
    assert [label.number for label in table] == sorted(numbers)
    made_up = [label.color for label in table if label not in LABELS]
    assert len(set(made_up)) == len(made_up)


def test_a_seg_nrrd_carries_what_slicer_reads(tmp_path: Path) -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 2:4, 0:5], labels[3, 4, 5] = 1, 5
    path = write_labels(labels, Volume.from_array(labels), tmp_path / "organs.seg.nrrd", names=LABELS)
    assert np.array_equal(read_labels(path).data, labels)
    assert read_label_names(path) == LABELS
    fields = header_fields(path)
    assert fields["Segment0_ID"] == "Segment_1"
    assert fields["Segment0_Extent"] == "0 4 2 3 1 2"  # first and last voxel along i, j, k
    assert fields["Segment1_Extent"] == "5 5 4 4 3 3"
    assert fields["Segment1_LabelValue"] == "5"
    assert fields["Segmentation_MasterRepresentation"] == "Binary labelmap"


def test_a_plain_nrrd_has_no_names(tmp_path: Path) -> None:
    labels = np.ones((2, 2, 2), np.uint8)
    assert read_label_names(write_labels(labels, Volume.from_array(labels), tmp_path / "plain.nrrd")) == []
    assert read_label_names(write_labels(labels, Volume.from_array(labels), tmp_path / "plain.nii")) == []


@pytest.mark.parametrize(("number", "color"), [(0, (0, 0, 0)), (1, (0, 0, 2)), (1, (0, 0))])
def test_a_label_needs_a_number_and_a_colour(number, color) -> None:
    with pytest.raises(ValueError):
        Label(number, "x", color)


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    columns = {"hd95_mm": {1: float("inf"), 5: 2.5}, "mean": {1: np.float64("nan"), 5: 1.0}}
    path = write_label_table([Label(1, "a", (1, 0, 0)), Label(5, "b", (0, 1, 0))], tmp_path / "t.json", **columns)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    first, second = json.loads(path.read_text(), parse_constant=refuse)
    assert (first["hd95_mm"], first["mean"]) == (None, None)
    assert (second["hd95_mm"], second["mean"]) == (2.5, 1.0)

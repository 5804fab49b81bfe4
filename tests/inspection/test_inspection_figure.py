"""Figures of heatmaps: where things are drawn, in millimetres, and whole files or none."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.inspection import inspect_slice
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.export import answer_figure
from napari_medtransformer.inspection.figure import draw_heads, figure_path, scale_bar_mm, write_figure
from napari_medtransformer.inspection.queries import VoxelQuery
from napari_medtransformer.models import load_model
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.sample_data import sample_path


@pytest.fixture
def figure():
    anatomy = np.linspace(0, 1, 20 * 30, dtype=np.float32).reshape(20, 30)
    heatmaps = np.zeros((3, 20, 30), np.float32)
    heatmaps[0, 4, 25] = heatmaps[1, 10, 10] = heatmaps[2, 19, 29] = 0.5
    return draw_heads(
        anatomy, heatmaps, spacing_mm=(5.0, 2.0), query=(4, 25), titles=["a", "b", "c"], caption="three heads of a test"
    )


def panels(figure):
    return [axis for axis in figure.axes if axis.images]


def test_every_head_gets_a_panel_with_the_anatomy_under_it(figure):
    assert [len(axis.images) for axis in panels(figure)] == [1, 2, 2, 2]
    assert [axis.get_title() for axis in panels(figure)] == ["anatomy and query", "a", "b", "c"]


def test_the_query_is_marked_at_the_centre_of_its_pixel_in_millimetres(figure):
    for axis in panels(figure):
        marks = [line for line in axis.lines if line.get_marker() == "+"]
        assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in marks} == {(25.5 * 2.0, 4.5 * 5.0)}


def test_the_picture_keeps_the_proportions_of_the_patient(figure):
    for axis in panels(figure):
        assert all(tuple(image.get_extent()) == (0, 60, 100, 0) for image in axis.images)
        assert axis.get_aspect() == 1.0


def test_where_a_head_does_not_look_the_anatomy_is_untouched(figure):
    overlay = panels(figure)[1].images[1]
    alpha = overlay.get_alpha()
    assert alpha[4, 25] == alpha.max() > 0.5
    assert np.count_nonzero(alpha) == 1


@pytest.mark.parametrize(("width_mm", "length_mm"), [(366, 50), (400, 100), (30, 5), (9, 2), (4, 1)])
def test_a_scale_bar_has_a_round_length_of_at_most_a_quarter(width_mm, length_mm):
    assert scale_bar_mm(width_mm) == length_mm


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_is_written_in_the_format_of_its_name(figure, tmp_path: Path, suffix: str):
    path = write_figure(figure, tmp_path / f"heads{suffix}")
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_png_shows_colour_over_the_grey_anatomy(figure, tmp_path: Path):
    pixels = np.asarray(Image.open(write_figure(figure, tmp_path / "heads.png", dots_per_inch=80)).convert("RGB"), int)
    assert (np.ptp(pixels, axis=-1) > 60).sum() > 100


@pytest.mark.parametrize("name", ["heads.jpeg", "heads", "missing/heads.png"])
def test_a_figure_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, name: str):
    with pytest.raises(CannotWrite):
        figure_path(tmp_path / name)


def test_heatmaps_that_do_not_fit_the_anatomy_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        draw_heads(np.zeros((4, 4)), np.zeros((1, 5, 4)), spacing_mm=(1, 1), query=(0, 0), titles=["a"], caption="")


@pytest.fixture(scope="module")
def click_model():
    return load_model("medt-click-tiny", device="cpu")


def turned_sample(code: str, folder: Path) -> Path:
    """The sample CT stored in another orientation, or scanned by a tilted gantry."""
    image = nib.load(sample_path("example_ct.nii.gz"))
    if code == "oblique":
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
        image = nib.Nifti1Image(np.asanyarray(image.dataobj), turn @ image.affine)
    else:
        there = nib.orientations.axcodes2ornt(tuple(code))
        image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), there))
    path = folder / f"{code}.nii.gz"
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("axis", "rightwards", "upwards", "top", "left"),
    [(0, "L", "A", "A", "R"), (1, "L", "S", "S", "R"), (2, "P", "S", "S", "A")],
    ids=["axial", "coronal", "sagittal"],
)
@pytest.mark.parametrize("code", ["RAS", "LPS", "oblique"])
def test_every_plane_is_drawn_as_radiologists_read_it(
    click_model, tmp_path: Path, code: str, axis: int, rightwards: str, upwards: str, top: str, left: str
):
    volume = read_volume(turned_sample(code, tmp_path))
    query = tuple(n // 2 + 7 for n in volume.shape)
    inspection = inspect_slice(click_model, volume, axis, query[axis])
    answer = ask(inspection, "encoder.1", VoxelQuery(tuple(map(float, query))))
    axes = panels(answer_figure(inspection, answer))[0]
    drawn = np.asarray(axes.images[0].get_array())
    turned = not np.array_equal(drawn, inspection.image)
    np.testing.assert_array_equal(drawn, inspection.image[::-1] if turned else inspection.image)

    def in_patient(row: int, column: int) -> np.ndarray:
        """RAS millimetres of a pixel of the picture."""
        return np.array(
            volume.mm_from_zyx(inspection.plane.in_volume((len(drawn) - 1 - row if turned else row, column)))
        )

    def direction(way: np.ndarray) -> str:
        axis = int(np.argmax(np.abs(way)))
        return ("LPI" if way[axis] < 0 else "RAS")[axis]

    assert direction(in_patient(0, 9) - in_patient(0, 0)) == rightwards
    assert direction(in_patient(0, 0) - in_patient(9, 0)) == upwards
    edges = {text.get_position(): text.get_text() for text in axes.texts if text.get_text()[0] in "RLAPSI"}
    assert (edges[0.5, 0.99][0], edges[0.01, 0.5][0]) == (top, left)
    cross = next(line for line in axes.lines if line.get_marker() == "+")
    row, column = (int(p[0] / mm) for p, mm in zip((cross.get_ydata(), cross.get_xdata()), inspection.spacing_mm))
    np.testing.assert_allclose(in_patient(row, column), volume.mm_from_zyx(query), atol=1e-6)
    bar = next(line for line in axes.lines if line.get_marker() != "+")
    length = float(next(t.get_text() for t in axes.texts if t.get_text().endswith(" mm")).removesuffix(" mm"))
    assert float(np.ptp(bar.get_xdata())) == pytest.approx(length)  # in the unit of the picture's axes:
    assert axes.images[0].get_extent()[1] == pytest.approx(drawn.shape[1] * inspection.spacing_mm[1])

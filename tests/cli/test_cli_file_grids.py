"""One place in the patient, typed as each file counts it, is segmented and inspected alike in every file's own grid.

The oracle is the CT as it is; the other files are made, and results read, with nibabel, SimpleITK, Pillow and numpy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_medtransformer.cli.app import run

LIVER, SLICE = (78, 58, 6), slice(100, 112)  # in the CT's own order; its axial slices that are kept
SHAPE = (122, 101, 12)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Millimetres are typed with four decimals; where convolutions multiply in bfloat16 a pixel or two at the border follow.
ROUNDED = 0.005
FILES = [
    *((".nii.gz", "LPS"), (".nii.gz", "PIR"), (".nii.gz", "oblique")),
    *((".nrrd", "SAL"), (".nrrd", "oblique"), (".mha", "LPS"), (".mha", "PIR")),
]


@dataclass(frozen=True)
class Case:
    """A file and where the liver's voxel lies in it. turn: nibabel's orientation from the CT's axes to the file's."""

    path: Path
    turn: np.ndarray
    affine: np.ndarray

    def index(self, ijk: tuple[float, ...]) -> np.ndarray:
        """A voxel of the CT as this file counts it."""
        back = nib.orientations.inv_ornt_aff(self.turn, SHAPE)  # from the turned index to the CT's
        return np.linalg.inv(back) @ [*ijk, 1.0]

    def typed(self, ijk: tuple[float, ...]) -> str:
        return ",".join(f"{c:.0f}" for c in self.index(ijk)[:3])

    def typed_mm(self, ijk: tuple[float, ...]) -> str:
        return ",".join(f"{c:.4f}" for c in (self.affine @ self.index(ijk))[:3])

    def as_the_ct(self, values: np.ndarray) -> np.ndarray:
        """Values on this file's grid in the CT's order."""
        inverse = np.empty_like(self.turn)
        for axis, (to, flip) in enumerate(self.turn):
            inverse[int(to)] = (axis, flip)
        return nib.orientations.apply_orientation(values, inverse)


@pytest.fixture(scope="module")
def ct(repository: Path) -> nib.Nifti1Image:
    image = nib.load(repository / "sample_data" / "example_ct.nii.gz")
    return image.slicer[:, :, SLICE]


def made(ct: nib.Nifti1Image, turn: str, path: Path) -> Case:
    """The CT with other axes or on an oblique grid, in the format of the suffix."""
    codes = "RAS" if turn == "oblique" else turn
    ornt = nib.orientations.ornt_transform(nib.io_orientation(ct.affine), nib.orientations.axcodes2ornt(tuple(codes)))
    image = ct.as_reoriented(ornt)
    values, affine = np.asarray(image.dataobj).astype(np.int16), image.affine
    if turn == "oblique":
        affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.15, -0.2, 0.25)) @ affine
    if path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(values, affine), path)
    else:
        spacing = nib.affines.voxel_sizes(affine)
        lps = LPS @ affine
        written = sitk.GetImageFromArray(values.transpose(2, 1, 0))
        written.SetSpacing(spacing.tolist())
        written.SetOrigin(lps[:3, 3].tolist())
        written.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        sitk.WriteImage(written, str(path))
    return Case(path, ornt, affine)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (i, j, k, …) and affine to RAS of what was written."""
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        return np.asarray(image.dataobj), image.affine
    written = sitk.ReadImage(str(path))
    direction = np.reshape(written.GetDirection(), (3, 3)) * written.GetSpacing()
    return sitk.GetArrayFromImage(written).transpose(2, 1, 0), LPS @ nib.affines.from_matvec(
        direction, written.GetOrigin()
    )


def click(case: Case, output: Path, *words: str) -> np.ndarray:
    assert run(["click", str(case.path), "-o", str(output), *words]) == 0
    labels, affine = read(output)
    np.testing.assert_allclose(affine, case.affine, atol=1e-3)  # float32 in headers
    return case.as_the_ct(labels)


@pytest.fixture(scope="module")
def truth(ct: nib.Nifti1Image, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The mask of a click in the liver in the CT as it is."""
    folder = tmp_path_factory.mktemp("truth")
    case = made(ct, "RAS", folder / "ct.nii.gz")
    mask = click(case, folder / "liver.nii.gz", "--point", ",".join(map(str, LIVER)))
    assert mask[LIVER] == 1
    assert 500 < mask.sum() == mask[..., LIVER[2]].sum()
    return mask


@pytest.mark.parametrize(("suffix", "turn"), FILES)
def test_a_click_gives_the_same_mask_in_every_format_and_orientation(
    ct: nib.Nifti1Image, truth: np.ndarray, tmp_path: Path, suffix: str, turn: str
) -> None:
    case = made(ct, turn, tmp_path / f"ct{suffix}")
    output = tmp_path / f"liver{suffix}"
    np.testing.assert_array_equal(click(case, output, "--point", case.typed(LIVER)), truth)
    by_mm = click(case, output, "--point", case.typed_mm(LIVER), "--mm")
    assert np.count_nonzero(by_mm != truth) <= ROUNDED * truth.sum()


def inspect(case: Case, output: Path, where: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[np.ndarray, dict]:
    """Heatmaps (i, j, k, heads) in the CT's order, and what was told."""
    capsys.readouterr()
    words = [str(case.path), "-o", str(output), "--query", *where, "--site", "encoder.5", "--json"]
    assert run(["inspect", *words]) == 0
    heat, affine = read(output)
    np.testing.assert_allclose(affine, case.affine, atol=1e-3)
    turned = np.stack([case.as_the_ct(heat[..., head]) for head in range(heat.shape[3])], axis=-1)
    return turned, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("suffix", "turn"), [(".nrrd", "PIR"), (".mha", "oblique")])
def test_heads_look_at_the_same_places_in_every_format_and_orientation(
    ct: nib.Nifti1Image, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, turn: str
) -> None:
    straight, turned = made(ct, "RAS", tmp_path / "straight.nii.gz"), made(ct, turn, tmp_path / f"turned{suffix}")
    truth, told = inspect(straight, tmp_path / "a.nii.gz", [straight.typed(LIVER)], capsys)
    assert truth.max() > 0
    assert any(head["top"] for head in told["sites"][0]["heads"])
    for where in ([turned.typed(LIVER)], [turned.typed_mm(LIVER), "--mm"]):
        heat, again = inspect(turned, tmp_path / "b.nii.gz", where, capsys)
        np.testing.assert_array_equal(heat, truth)
        for head, same in zip(told["sites"][0]["heads"], again["sites"][0]["heads"]):
            assert same["entropy"] == head["entropy"]
            assert (same["top"] is None) == (head["top"] is None)  # None: padding
            if head["top"] is None:
                continue
            np.testing.assert_allclose(same["top"], turned.index(tuple(head["top"]))[:3], atol=2e-3)  # told to 0.001


def test_voxels_of_a_dicom_folder_are_counted_as_itk_counts_them(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "totalsegmentator" / "dicom"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    series = reader.Execute()
    ijk = (200, 260, 9)
    lps = series.TransformIndexToPhysicalPoint(ijk)
    words = ["click", str(folder), "-o"]
    assert run([*words, str(tmp_path / "a.nrrd"), "--point", ",".join(map(str, ijk))]) == 0
    mm = ",".join(f"{c:.4f}" for c in LPS[:3, :3] @ lps)
    assert run([*words, str(tmp_path / "b.nii.gz"), "--mm", "--point", mm]) == 0
    written = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    assert written.GetSize() == series.GetSize()
    np.testing.assert_allclose(written.TransformIndexToPhysicalPoint(ijk), lps, atol=1e-3)
    assert written[ijk] == 1
    by_mm = np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj)
    by_voxel = sitk.GetArrayFromImage(written).transpose(2, 1, 0)
    assert np.count_nonzero(by_mm != by_voxel) <= ROUNDED * by_voxel.sum()


def test_pictures_and_arrays_are_counted_by_column_and_row_as_each_keeps_them(
    ct: nib.Nifti1Image, tmp_path: Path
) -> None:
    """A picture's first number is its column, an array's the first of its own indices."""
    from PIL import Image

    grey = np.clip((np.asarray(ct.dataobj)[:, ::-1, LIVER[2]].T + 160) / 400 * 255, 0, 255).astype(np.uint8)
    row, column = SHAPE[1] - 1 - LIVER[1], LIVER[0]
    for suffix in (".png", ".tif"):
        Image.fromarray(grey).save(tmp_path / f"slice{suffix}")
    np.save(tmp_path / "slice.npy", grey[np.newaxis])
    masks = []
    for name, point in (
        ("slice.png", f"{column},{row},0"),
        ("slice.tif", f"{column},{row},0"),
        ("slice.npy", f"0,{row},{column}"),
    ):
        output = tmp_path / f"{name}.nii"
        assert run(["click", str(tmp_path / name), "-o", str(output), "--point", point]) == 0
        mask = np.squeeze(np.asarray(nib.load(output).dataobj))
        masks.append(mask if name.endswith(".npy") else mask.T)
    assert masks[0].shape == grey.shape
    assert masks[0][row, column] == 1
    np.testing.assert_array_equal(masks[1], masks[0])
    np.testing.assert_array_equal(masks[2], masks[0])

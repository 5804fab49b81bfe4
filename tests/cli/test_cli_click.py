"""`medtransformer click` on real files: labels land on the file's own grid, under the voxels that were typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from program import call_program

PROGRAM = Path(sys.executable).with_name("medtransformer")
LIVER, SPLEEN, RIGHT_KIDNEY = 5, 1, 2  # of sample_data/labels.json


def click(*words: str | Path) -> str:
    done = call_program("click", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def click_from_a_shell(*words: str | Path) -> str:
    done = subprocess.run(
        [PROGRAM, "click", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def ct(repository: Path) -> Path:
    return repository / "sample_data" / "example_ct.nii.gz"


@pytest.fixture(scope="module")
def organs(repository: Path) -> np.ndarray:
    """The sample's labels in the CT file's order (i, j, k); k is the axial axis."""
    image = nib.load(repository / "sample_data" / "example_seg_fast_force_split.nii.gz")
    return np.asarray(image.dataobj)


def central_voxel(organ: np.ndarray) -> tuple[int, int, int]:
    """The voxel nearest to the centre of the organ on its largest axial slice."""
    k = int(organ.sum(axis=(0, 1)).argmax())
    inside = np.argwhere(organ[..., k])
    i, j = inside[np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()]
    return int(i), int(j), k


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(
    ("organ", "least"), [(LIVER, 0.85), (SPLEEN, 0.75), (RIGHT_KIDNEY, 0.7)], ids=["liver", "spleen", "right-kidney"]
)
def test_smoke_one_click_finds_an_organ_of_the_training_anatomy(ct: Path, organs, tmp_path: Path, organ, least):
    i, j, k = central_voxel(organs == organ)
    start = click_from_a_shell if organ == LIVER else click
    start(ct, "-o", tmp_path / "out.nii.gz", "--point", f"{i},{j},{k}")
    found = np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj) == 1
    assert found[i, j, k]
    assert dice(found[..., k], organs[..., k] == organ) >= least
    assert found.sum() == found[..., k].sum()  # nothing off the slice


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
def test_labels_land_under_the_typed_voxel_whatever_the_files_axes(ct: Path, organs, tmp_path: Path, codes: str):
    image = nib.load(ct)
    to_codes = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(to_codes)
    nib.save(turned, tmp_path / "ct.nii")
    liver = nib.orientations.apply_orientation(organs == LIVER, to_codes)
    inside = np.argwhere(nib.orientations.apply_orientation(_only(central_voxel(organs == LIVER)), to_codes))[0]
    click(tmp_path / "ct.nii", "-o", tmp_path / "out.nii", "--point", ",".join(map(str, inside)))
    written = nib.load(tmp_path / "out.nii")
    assert written.shape == turned.shape
    np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "ct.nii").affine)
    found = np.asarray(written.dataobj) == 1
    assert found[tuple(inside)]
    assert liver[found].mean() > 0.75  # most of what was painted is liver, in the file's own axes


def _only(ijk: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((122, 101, 112), bool)
    mask[ijk] = True
    return mask


def test_millimetres_name_the_same_voxel(ct: Path, organs, tmp_path: Path):
    ijk = central_voxel(organs == LIVER)
    ras = nib.affines.apply_affine(nib.load(ct).affine, ijk)
    click(ct, "-o", tmp_path / "voxel.nii.gz", "--point", ",".join(map(str, ijk)))
    click(ct, "-o", tmp_path / "mm.nii.gz", "--mm", "--point", ",".join(f"{c:.3f}" for c in ras))
    by_voxel, by_mm = (np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("voxel", "mm"))
    assert by_voxel.any()
    # millimetres have three decimals here: a pixel on the very edge may fall to the other side, no more
    assert np.count_nonzero(by_voxel != by_mm) <= 0.001 * np.count_nonzero(by_voxel)


def test_the_json_summary_agrees_with_the_file(ct: Path, organs, tmp_path: Path):
    i, j, k = central_voxel(organs == LIVER)
    inside = np.argwhere((organs == LIVER)[..., k])
    (i0, j0), (i1, j1) = inside.min(axis=0), inside.max(axis=0) + 1
    summary = json.loads(
        click(
            ct,
            "-o",
            tmp_path / "out.nii.gz",
            "--point",
            f"{i},{j},{k}",
            "--box",
            f"{i0},{j0},{k},{i1},{j1},{k}",
            "--json",
        )
    )
    found = np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj)
    assert summary["voxels"] == np.count_nonzero(found) > 0
    assert summary["millilitres"] == pytest.approx(np.count_nonzero(found) * 27 / 1000, rel=1e-4)  # 3 mm voxels
    assert summary["model"] == "medt-click-tiny"
    # The file's k axis grows toward superior, as the canonical z does, so the slice has the same number.
    assert summary["slices"] == [k]


def test_a_click_on_a_sagittal_slice_stays_on_it(ct: Path, organs, tmp_path: Path):
    i, j, k = central_voxel(organs == LIVER)
    click(ct, "-o", tmp_path / "out.nii.gz", "--point", f"{i},{j},{k}", "--axis", "sagittal")
    found = np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj)
    assert set(np.nonzero(found)[0]) == {i}

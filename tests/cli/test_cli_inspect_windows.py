"""`medtransformer inspect` with the bundled automatic model: maps in three axes on the file's grid, shares."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from program import call_program

import napari_medtransformer as nmt
from napari_medtransformer.inspection import AttentionProbe


def inspect(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return call_program("inspect", *words)


@pytest.mark.slow
def test_maps_of_an_automatic_model_are_the_engines_on_the_files_grid(repository: Path, tmp_path: Path) -> None:
    brain, labels = (repository / "sample_data" / f"hippocampus_003{end}.nii.gz" for end in ("", "_labels"))
    query, site = (17, 24, 17), "encoder.1.1"
    done = inspect(
        brain, "-q", ",".join(map(str, query)), "-m", "medt-hippocampus", "--site", site, "-o", tmp_path / "h.nii.gz",
        "--figure", tmp_path / "f.png", "--labels", labels, "--shares", tmp_path / "s.csv", "--rollout",
        tmp_path / "r.png", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["label"] in ("background", "anterior hippocampus", "posterior hippocampus")

    volume, model = nmt.read_volume(brain), nmt.load_model("medt-hippocampus", device="cpu")
    # the file's (i, j, k) as (z, y, x), through the affines: the independent way
    ras = nib.load(brain).affine @ [*query, 1]
    zyx = tuple(np.linalg.solve(volume.affine, ras)[:3])
    with AttentionProbe(model) as probe:
        nmt.segment(model, volume)
    expected = probe.heatmap(site, zyx).on_pixels(smooth=False)
    written = nib.load(tmp_path / "h.nii.gz")
    assert np.allclose(written.affine, nib.load(brain).affine)
    assert written.shape == (*nib.load(brain).shape, expected.shape[0])
    peak = np.unravel_index(int(expected[0].argmax()), expected[0].shape)
    ijk = np.linalg.solve(written.affine, volume.affine @ [*peak, 1])[:3].round().astype(int)
    values = np.asarray(written.dataobj)[..., 0]
    assert values[tuple(ijk)] == pytest.approx(values.max()) == pytest.approx(float(expected[0].max()), rel=1e-3)
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    for head in {row["head"] for row in rows}:
        assert sum(float(row["share"]) for row in rows if row["head"] == head) == pytest.approx(1, abs=1e-3)
    assert (tmp_path / "f.png").stat().st_size > 10_000
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_what_only_a_click_model_has_is_refused_in_one_line(repository: Path, tmp_path: Path) -> None:
    brain = repository / "sample_data" / "hippocampus_003.nii.gz"
    done = inspect(brain, "-q", "17,24,17", "-m", "medt-hippocampus", "-o", tmp_path / "rows.npz")
    assert done.returncode == 2
    assert done.stderr.startswith("error: rows of an automatic model")
    assert len(done.stderr.strip().splitlines()) == 1

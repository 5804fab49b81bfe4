"""`medtransformer inspect` with a model that sees the patient turned round, on files of other orientations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from turned_models import CARD, write_oriented

from napari_medtransformer.cli.app import run
from napari_medtransformer.models import register
from napari_medtransformer.models.registry import unregister


@pytest.fixture
def registered() -> Iterator[str]:
    register(CARD)
    yield CARD.name
    unregister(CARD.name)


@pytest.mark.parametrize("name", ["LPS", "oblique SAL"])
def test_a_local_heads_map_is_highest_at_the_voxel_of_the_file_that_asks(
    registered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    world = write_oriented(tmp_path / "in.nii.gz", name)
    affine = nib.load(tmp_path / "in.nii.gz").affine
    query = np.linalg.solve(affine, [*world, 1])[:3].round().astype(int)
    words = ["--weights", "random", "--device", "cpu", "--site", "encoder.1.1", "--json"]
    words += ["-q", ",".join(map(str, query)), "-o", str(tmp_path / "out.nii.gz")]
    assert run(["inspect", str(tmp_path / "in.nii.gz"), "-m", registered, *words]) == 0
    told = json.loads(capsys.readouterr().out)
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    heads = np.asarray(written.dataobj)
    tops = [head["top"] for head in told["sites"][0]["heads"]]
    assert heads.shape[-1] == len(tops) == 6
    for head, top in zip(np.moveaxis(heads, -1, 0), tops, strict=True):
        # the middle of what is highest, which tokens of 4 voxels show as a block
        peak = np.argwhere(head >= 0.999 * head.max()).mean(axis=0)
        assert (np.abs(peak - query) <= 4).all(), (peak, query)
        assert (np.abs(np.array(top) - query) <= 4).all(), (top, query)

"""Folders of small volumes for `medtransformer segment`, and how it is run on them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from batch_card import CARD

from napari_medtransformer.segmentation.work import Done, Errand, Job

# The same card in a process of its own.
PROGRAM = """
import sys
from batch_card import CARD

from napari_medtransformer.segmentation.work import Done, Errand, Job
from napari_medtransformer.cli import main
from napari_medtransformer.models import register
if __name__ == "__main__":
    register(CARD)
    main(sys.argv[1:])
"""


def make_volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, (20, 24, 22)).astype(np.int16)


def make_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        affine = np.diag([1.0, -1.0, 1.0, 1.0])
        nib.save(nib.Nifti1Image(make_volume(n), affine), folder / f"case_{n:02}.nii.gz")
    return folder


def run_or_die(job: Job, errand: Errand) -> Done:
    """As run_errand, without a model; the second case ends the process it is in."""
    if errand.case.name == "case_01":
        os._exit(9)
    time.sleep(0.5)  # not done when that one dies
    return Done(errand.case.name, str(errand.case.path), str(errand.output), {})


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def arguments(source: Path, out: Path, *more: str) -> list[str]:
    return ["segment", str(source), "-o", str(out), "-m", CARD.name, "--weights", "random", "--device", "cpu", *more]

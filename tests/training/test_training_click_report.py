"""What the card of a click model says of the volumes it was trained on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_medtransformer.models.card_files import read_card
from napari_medtransformer.progress import Result, run_to_end
from napari_medtransformer.training import click_report


def test_a_modality_that_no_file_states_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).uniform(0, 900, (12, 12, 12)).astype(np.float32)
    for kind, values in (("images", image), ("labels", (image > 450).astype(np.uint8))):
        (tmp_path / "mr" / kind).mkdir(parents=True)
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "mr" / kind / "a.nii.gz")
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    monkeypatch.setattr(click_report, "train_click", lambda *given, **named: iter([Result(weights)]))
    trained = run_to_end(click_report.train_click_model(click_report.ClickTraining(tmp_path / "mr", tmp_path, "mr")))
    assert read_card(trained.card_file).modalities == ()

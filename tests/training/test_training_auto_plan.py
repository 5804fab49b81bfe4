"""What a folder of labelled volumes asks for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from napari_medtransformer.progress import run_to_end
from napari_medtransformer.training.auto_cases import CaseFiles, read_pair
from napari_medtransformer.training.auto_plan import named_labels, plan_training
from napari_medtransformer.volumes.label_table import Label, label_color
from napari_medtransformer.volumes.sample_data import sample_path


def test_a_cts_clip_comes_from_the_whole_of_what_is_labelled(tmp_path: Path) -> None:
    case = CaseFiles("ct", sample_path("example_ct.nii.gz"), sample_path("example_seg_fast_force_split.nii.gz"))
    volume, labels = read_pair(case)
    inside = np.asarray(volume.data)[labels > 0]
    low, high = run_to_end(plan_training([case], tmp_path)).clip
    # of 50,000 voxels, 0.5 percent is known to 0.1 percent (three standard errors); the clip is in whole units
    least, most = np.percentile(inside, [0.4, 0.6])
    assert least - 0.5 <= low <= most + 0.5
    least, most = np.percentile(inside, [99.4, 99.6])
    assert least - 0.5 <= high <= most + 0.5


def test_names_come_from_the_decathlons_and_nnunets_tables(tmp_path: Path) -> None:
    for given in ({"0": "background", "1": "liver"}, {"background": 0, "liver": 1}):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": given}))
        assert named_labels(tmp_path) == [Label(1, "liver", label_color(1))]
    (tmp_path / "labels.csv").write_text("number,name,color\n7,spleen,#0000ff\n")
    assert named_labels(tmp_path) == [Label(7, "spleen", (0.0, 0.0, 1.0))]

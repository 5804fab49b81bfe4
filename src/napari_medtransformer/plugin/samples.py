"""napari sample data: a CT and an MR of a body, a hippocampus; sources and licences in sample_data/LICENSES.md."""

from __future__ import annotations

from napari_medtransformer.plugin.layers import LayerData, image_layer, labels_layer
from napari_medtransformer.plugin.readers import accompany
from napari_medtransformer.volumes.reading import read_labels, read_volume
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path


def ct() -> list[LayerData]:
    """A CT of a torso, 3 mm (TotalSegmentator, Apache-2.0)."""
    accompany()
    return [image_layer(read_volume(sample_path("example_ct.nii.gz")))]


def ct_with_organs() -> list[LayerData]:
    """The CT of a torso and 61 organs found by TotalSegmentator."""
    return [*ct(), _labels("example_seg_fast_force_split.nii.gz", "organs", "total")]


def mr() -> list[LayerData]:
    """An MR of an abdomen, 3 mm (TotalSegmentator, Apache-2.0)."""
    accompany()
    return [image_layer(read_volume(sample_path("example_mr_sm.nii.gz"), modality="MR"))]


def mr_with_organs() -> list[LayerData]:
    """The MR of an abdomen and 23 organs found by TotalSegmentator."""
    return [*mr(), _labels("example_seg_mr.nii.gz", "organs", "total_mr")]


def hippocampus() -> list[LayerData]:
    """A T1-weighted MR about a hippocampus and its two parts, drawn by hand (Decathlon, CC BY-SA 4.0)."""
    accompany()
    return [
        image_layer(read_volume(sample_path("hippocampus_003.nii.gz"), modality="MR")),
        _labels("hippocampus_003_labels.nii.gz", "hippocampus parts", "hippocampus"),
    ]


def _labels(file: str, name: str, group: str) -> LayerData:
    """A labels layer whose features name every label, so that napari's status bar does too."""
    labels = read_labels(sample_path(file))
    names = sample_label_names(group)
    highest = max(names)
    column = ["background", *(names.get(number, "") for number in range(1, highest + 1))]
    features = {"index": list(range(highest + 1)), "name": column}
    return labels_layer(labels.data, labels, name, features=features)

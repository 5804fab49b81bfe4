"""Volumes: reading, geometry, intensities and writing, without torch and without a screen."""

from napari_medtransformer.volumes.intensity import CT_PRESETS, Modality, Window, apply_window, default_window
from napari_medtransformer.volumes.label_table import Label, read_label_table, write_label_table
from napari_medtransformer.volumes.reading import read_frames, read_label_names, read_labels, read_volume
from napari_medtransformer.volumes.resampling import resample_isotropic, resample_onto
from napari_medtransformer.volumes.statistics import LabelStatistics, label_statistics, write_statistics
from napari_medtransformer.volumes.volume import FileGrid, Volume
from napari_medtransformer.volumes.writing import write_heatmap, write_labels, write_volume

__all__ = [
    "CT_PRESETS",
    "FileGrid",
    "Label",
    "LabelStatistics",
    "Modality",
    "Volume",
    "Window",
    "apply_window",
    "default_window",
    "label_statistics",
    "read_frames",
    "read_label_names",
    "read_label_table",
    "read_labels",
    "read_volume",
    "resample_isotropic",
    "resample_onto",
    "write_heatmap",
    "write_label_table",
    "write_labels",
    "write_statistics",
    "write_volume",
]

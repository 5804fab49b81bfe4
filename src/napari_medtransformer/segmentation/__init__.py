"""Automatic segmentation: whole volumes by sliding windows in bounded memory, judged, and in batches."""

from napari_medtransformer.segmentation.engine import Segmentation, segment, segment_steps, volume_logits
from napari_medtransformer.segmentation.options import SegmentOptions
from napari_medtransformer.segmentation.run import FinishedSlab

__all__ = ["FinishedSlab", "SegmentOptions", "Segmentation", "segment", "segment_steps", "volume_logits"]

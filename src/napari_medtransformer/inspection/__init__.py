"""Looking inside: heatmaps in the volume, what organs a query attends to, and the probe for programs."""

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.probe import AttentionProbe, SiteSummary
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.inspection.inspect import SliceInspection, inspect_slice
from napari_medtransformer.inspection.place import PlacedHeatmap, SlicePlane
from napari_medtransformer.inspection.shares import LabelShares

__all__ = [
    "AttentionProbe",
    "AttentionSite",
    "Heatmap",
    "LabelShares",
    "PlacedHeatmap",
    "SiteSummary",
    "SliceInspection",
    "SlicePlane",
    "inspect_slice",
]

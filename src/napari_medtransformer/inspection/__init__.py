"""Looking inside: heatmaps in the volume, what organs a query attends to, and the probe for programs."""

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.probe import AttentionProbe, SiteSummary
from napari_medtransformer.attention.sites import AttentionSite

__all__ = ["AttentionProbe", "AttentionSite", "Heatmap", "SiteSummary"]

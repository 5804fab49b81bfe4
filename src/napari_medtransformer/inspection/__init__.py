"""Looking inside: heatmaps in the volume, what organs a query attends to, and the probe for programs."""

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.probe import AttentionProbe, SiteSummary
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.inspection.ablation import masks_without, rank_heads
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.compare import compare_maps, head_similarity
from napari_medtransformer.inspection.export import answer_figure, answer_shares, answer_volume, write_table
from napari_medtransformer.inspection.figure import write_figure
from napari_medtransformer.inspection.inspect import SliceInspection, inspect_slice
from napari_medtransformer.inspection.matrix import head_matrix, matrix_steps
from napari_medtransformer.inspection.place import PlacedHeatmap, SlicePlane
from napari_medtransformer.inspection.queries import (
    ROLLOUT,
    Answer,
    EverythingQuery,
    PrefixQuery,
    PromptQuery,
    RegionQuery,
    VoxelQuery,
    prompt_queries,
)
from napari_medtransformer.inspection.relevance import label_relevance, mask_relevance
from napari_medtransformer.inspection.shares import LabelShares
from napari_medtransformer.inspection.volume_ablation import labels_without, rank_heads_for_label
from napari_medtransformer.inspection.volume_queries import ask_everywhere_steps
from napari_medtransformer.inspection.windows import VolumeInspection, inspect_windows

__all__ = [
    "ROLLOUT",
    "Answer",
    "AttentionProbe",
    "AttentionSite",
    "EverythingQuery",
    "Heatmap",
    "LabelShares",
    "PlacedHeatmap",
    "PrefixQuery",
    "PromptQuery",
    "RegionQuery",
    "SiteSummary",
    "SliceInspection",
    "SlicePlane",
    "VolumeInspection",
    "VoxelQuery",
    "answer_figure",
    "answer_shares",
    "answer_volume",
    "ask",
    "ask_everywhere_steps",
    "compare_maps",
    "head_matrix",
    "head_similarity",
    "inspect_slice",
    "inspect_windows",
    "label_relevance",
    "labels_without",
    "mask_relevance",
    "masks_without",
    "matrix_steps",
    "prompt_queries",
    "rank_heads",
    "rank_heads_for_label",
    "write_figure",
    "write_table",
]

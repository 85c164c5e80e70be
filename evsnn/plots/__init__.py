"""Pictures, drawn without a display: arrays and plain values in, Matplotlib figures out."""

from evsnn.plots.curves import draw_curves, plot_curves
from evsnn.plots.events import draw_frames, draw_raster, draw_surface, is_flat
from evsnn.plots.layers import draw_membrane, draw_spikes
from evsnn.plots.operations import draw_operations
from evsnn.plots.results import draw_answers, draw_confusion
from evsnn.plots.style import FORMATS, render
from evsnn.plots.weights import draw_filters, draw_matrix, draw_receptive_fields

__all__ = [
    "FORMATS",
    "draw_answers",
    "draw_confusion",
    "draw_curves",
    "draw_filters",
    "draw_frames",
    "draw_matrix",
    "draw_membrane",
    "draw_operations",
    "draw_raster",
    "draw_receptive_fields",
    "draw_spikes",
    "draw_surface",
    "is_flat",
    "plot_curves",
    "render",
]

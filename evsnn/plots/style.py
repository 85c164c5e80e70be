"""What all pictures share: colours, figures, files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

#: Formats a picture can be written in.
FORMATS = ("png", "svg", "pdf")

#: Colours that the common kinds of colour blindness keep apart (Okabe and Ito 2008).
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
#: Of the channels of an event camera: OFF (darker), ON (brighter).
OFF, ON = BLUE, VERMILLION
GREY = "0.55"

_DPI = 110


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of a size in inches that no global state knows of."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle(literal(title), fontsize="medium" if "\n" in title else None)
    return figure


def literal(text: str) -> str:
    """Text that Matplotlib shows as it is: dollars in the name of a file begin no formula."""
    return text.replace("$", r"\$")


def render(figure: Figure, kind: str = "png") -> bytes:
    """File of a figure; the same figure gives the same bytes: no dates, no random names.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    kind : {"png", "svg", "pdf"}
    """
    import matplotlib as mpl  # noqa: PLC0415 - slow to import

    metadata = {
        "png": {"Software": None},
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
    }[kind]
    image = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "evsnn"}):
        figure.savefig(image, format=kind, metadata=metadata)
    return image.getvalue()


def shade(colour: str, name: str) -> Colormap:
    """Colour map from white over a colour to its dark form, for values of one sign."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb  # noqa: PLC0415 - slow to import

    if colour == BLACK:  # has no darker form: half of the scale would look the same
        return LinearSegmentedColormap.from_list(name, ["white", BLACK])
    red, green, blue = to_rgb(colour)
    dark = to_hex((0.35 * red, 0.35 * green, 0.35 * blue))
    return LinearSegmentedColormap.from_list(name, ["white", colour, dark])


def diverging() -> Colormap:
    """Colour map of positive (red) and negative (blue) values; gaps are grey."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import

    return mpl.colormaps["RdBu_r"].with_extremes(bad="0.75")


def channel_styles(channels: int) -> list[tuple[str, str]]:
    """Name and colour of each input channel: two are the polarities of an event camera."""
    if channels == 1:
        return [("", BLACK)]
    if channels == 2:
        return [("OFF", OFF), ("ON", ON)]
    return [(f"channel {index}", COLOURS[index % len(COLOURS)]) for index in range(channels)]


def limit_of(values: npt.NDArray[Any]) -> float:
    """End of a symmetric colour scale: all but the largest half per cent of the values lie within."""
    size = float(np.nanquantile(np.abs(values), 0.995)) if values.size else 0.0
    return size or 1.0

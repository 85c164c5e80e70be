"""Pictures of the events of one sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evsnn.plots.style import channel_styles, new_figure, shade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UInt32 = npt.NDArray[np.uint32]
Shape = tuple[int, int, int]

#: With more channels than this, pictures of the pixels show all channels together.
_MOST_CHANNELS = 2
#: Windows of time side by side.
_MOST_COLUMNS = 8


def draw_raster(times: UInt32, units: UInt32, shape: Shape, duration_us: int, title: str) -> Figure:
    """Draw every event of a sample: time against x and y, or against its unit if the input is flat.

    Parameters
    ----------
    times, units : ndarray of uint32, shape (n,)
        Microseconds; ``(c*H + y)*W + x``.
    shape : (C, H, W)
    duration_us : int
        End of the axis of time.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    channels, height, width = shape
    flat = is_flat(shape)
    milliseconds = times / 1000
    rows: list[tuple[str, npt.NDArray[Any], int]]
    if flat:
        rows = [("unit", units, channels * height * width)]
    else:
        rows = [("x (pixel)", units % width, width), ("y (pixel)", units // width % height, height)]
    figure = new_figure(9, 1.2 + 2.3 * len(rows), title)
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    styles = channel_styles(1 if flat else channels)
    channel = np.zeros_like(units) if flat else units // (width * height)
    for axes, (label, values, size) in zip(panels, rows, strict=True):
        for index, (name, colour) in enumerate(styles):
            mine = channel == index
            axes.plot(
                milliseconds[mine],
                values[mine],
                linestyle="none",
                marker=".",
                markersize=4 if len(times) < 2000 else 2.5,
                markeredgewidth=0,
                alpha=0.8,
                color=colour,
                label=name,
            )
        axes.set(ylabel=label, ylim=(-0.5, size - 0.5), xlim=(0, duration_us / 1000))
    if not flat:
        panels[1].invert_yaxis()  # as in an image, y counts downwards
    panels[-1].set_xlabel("time (ms)")
    if len(styles) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside right upper", frameon=False, handletextpad=0, markerscale=4
        )
    return figure


def draw_frames(
    times: UInt32, units: UInt32, shape: Shape, duration_us: int, windows: int, title: str
) -> Figure:
    """Draw how many events every pixel has in each of some equal windows of time.

    Parameters
    ----------
    times, units, shape, duration_us, title
        As for :func:`draw_raster`; the windows divide the duration.
    windows : int

    Returns
    -------
    matplotlib.figure.Figure
        A row for each polarity, in lines of eight windows; an input of more than two channels is summed
        over them.
    """
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - slow to import

    _, height, width = shape
    window = np.minimum(times.astype(np.int64) * windows // duration_us, windows - 1)
    channel = _shown_channel(units, shape)
    n_channels = _shown_channels(shape)
    flat = np.zeros((n_channels, windows, height * width), np.int64)
    np.add.at(flat, (channel, window, units % (height * width)), 1)
    counts = flat.reshape(n_channels, windows, height, width)
    largest = max(int(counts.max()), 1)
    edges = [duration_us * index / windows / 1000 for index in range(windows + 1)]

    styles = channel_styles(n_channels)
    columns = min(windows, _MOST_COLUMNS)
    lines = -(-windows // columns) * n_channels
    size = min(2.6, 10.5 / columns)
    tall = size * min(height / width, 2)
    figure = new_figure(max(columns * size + 1.2, 4.5), lines * (tall + 0.15) + 0.8, title)
    panels = figure.subplots(lines, columns, squeeze=False)
    for line, row in enumerate(panels):
        channel_index = line % n_channels
        name, colour = styles[channel_index]
        shown = list(range(line // n_channels * columns, windows))[:columns]
        for position, axes in zip(shown, row, strict=False):
            image = _image(axes, counts[channel_index, position], colour, 0, largest)
            if channel_index == 0:
                axes.set_title(f"{edges[position]:.4g} to {edges[position + 1]:.4g}", fontsize="small")
        for axes in row[len(shown) :]:
            axes.set_axis_off()
        row[0].set_ylabel(name)
        ticks = MaxNLocator(nbins=5, integer=True)
        figure.colorbar(image, ax=list(row), label="events", pad=0.01, fraction=0.05, ticks=ticks)
    figure.supxlabel("window of time (ms)", fontsize="medium")
    return figure


def draw_surface(
    times: UInt32,
    units: UInt32,
    shape: Shape,
    end_us: float,
    tau_us: float,
    title: str,
) -> Figure:
    """Draw the time surface of a sample: ``exp(-(t_end - t_last) / tau)`` of each pixel's last event.

    Parameters
    ----------
    times, units, shape, title
        As for :func:`draw_raster`.
    end_us : float
        When the surface is taken; later events are left out. Pixels without an event are 0.
    tau_us : float

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each polarity; of more than two channels the latest event of any counts.
    """
    _, height, width = shape
    n_channels = _shown_channels(shape)
    seen = times <= end_us
    place = (_shown_channel(units, shape) * (height * width) + units % (height * width))[seen]
    last = np.full(n_channels * height * width, -np.inf)
    np.maximum.at(last, place, times[seen].astype(np.float64))
    surface = np.exp((last - end_us) / tau_us).reshape(n_channels, height, width)

    title += f"\nat {end_us / 1000:.4g} ms, tau = {tau_us / 1000:.4g} ms"
    figure = new_figure(0.8 + 4.0 * n_channels, 4.3, title)
    panels = figure.subplots(1, n_channels, squeeze=False)[0]
    for axes, values, (name, colour) in zip(panels, surface, channel_styles(n_channels), strict=True):
        image = _image(axes, values, colour, 0.0, 1.0)
        axes.set_xlabel("x (pixel)")
        axes.set_title(name, fontsize="medium")
        axes.tick_params(left=True, bottom=True, labelleft=True, labelbottom=True)
        figure.colorbar(image, ax=axes, shrink=0.85, label="exp(-age / tau)")
    panels[0].set_ylabel("y (pixel)")
    return figure


def is_flat(shape: Shape) -> bool:
    """Whether an input has no height and width, so that there are no pixels to draw."""
    return min(shape[1:]) == 1


def _shown_channels(shape: Shape) -> int:
    return shape[0] if shape[0] <= _MOST_CHANNELS else 1


def _shown_channel(units: UInt32, shape: Shape) -> npt.NDArray[np.int64]:
    channel = units.astype(np.int64) // (shape[1] * shape[2])
    return channel if shape[0] <= _MOST_CHANNELS else np.zeros_like(channel)


def _image(axes: Any, values: npt.NDArray[Any], colour: str, low: float, high: float) -> Any:  # noqa: ANN401 - Matplotlib has no types
    image = axes.imshow(values, cmap=shade(colour, "events"), vmin=low, vmax=high, interpolation="nearest")
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    return image

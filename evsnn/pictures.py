"""Pictures of what a file holds: events, a model, a run; decided by the file itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from evsnn import checkpoint, plots
from evsnn.backends import CpuBackend
from evsnn.encoders.settings import EncoderSettings
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import Events, EventSet
from evsnn.events.file import EventSplit, open_events
from evsnn.layers.base import SpikingLayer
from evsnn.layers.conv import Conv2d
from evsnn.network.architecture import LARGEST
from evsnn.network.network import Network, Record
from evsnn.network.trace import spiking_layer, trace_membrane
from evsnn.plots.layers import Spikes, Trace
from evsnn.training.config import RunConfig
from evsnn.training.data import load_split
from evsnn.training.evaluation import evaluate
from evsnn.training.run import CONFIG, METRICS, MODEL, read_metrics
from evsnn.training.state import CHECKPOINT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

OF_EVENTS = ("raster", "frames", "surface")
OF_MODEL = ("weights", "spikes", "membrane", "confusion")
OF_RUN = ("curves", *OF_MODEL)
#: Every kind of picture, in the order in which they are drawn.
KINDS = (*OF_EVENTS, *OF_RUN)
_NEED_DATA = ("spikes", "membrane", "confusion")

_TRACES = 8
_MOST_TRACES = 32
_IMAGES = 64
_MOST_IMAGES = 400
_MOST_WINDOWS = 64


@dataclass(frozen=True)
class PictureSettings:
    """What to draw.

    Parameters
    ----------
    what : tuple of str
        Kinds of pictures; empty for all that apply to the file.
    sample : int
        Number of the sample, for pictures of one.
    split : str
        Empty for ``test``, or the first split where there is no such.
    data : str
        Event file for pictures of a model; empty for the data set that its run folder names.
    layer : int
        Layer counted from 1, with pooling layers; 0 for the first in ``weights``, the last in ``membrane``.
    neurons : tuple of int
        Neurons, or maps of a convolution in ``weights``; empty for a choice.
    windows : int
        Windows of ``frames``.
    tau_ms : float
        Time constant of ``surface``; 0 for a fifth of the duration.
    end_ms : float
        When ``surface`` is taken; 0 for the last event.

    Raises
    ------
    SettingsError
        Naming the value out of range.
    """

    what: tuple[str, ...] = ()
    sample: int = 0
    split: str = ""
    data: str = ""
    layer: int = 0
    neurons: tuple[int, ...] = ()
    windows: int = 8
    tau_ms: float = 0.0
    end_ms: float = 0.0

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.what if kind not in KINDS]
        if unknown:
            raise SettingsError(f"no picture is called {unknown[0]!r}; there are {', '.join(KINDS)}")
        for name in ("sample", "layer"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 1 <= self.windows <= _MOST_WINDOWS:
            raise SettingsError(f"windows must lie in 1 to {_MOST_WINDOWS}, got {self.windows}")
        for name in ("tau_ms", "end_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SettingsError(f"{name} must be a number of milliseconds above 0, got {value:g}")


@dataclass(frozen=True)
class Picture:
    """One picture, not drawn yet.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    name : str
        Name of its file, without suffix.
    draw : callable
        Returns the Matplotlib figure.
    """

    kind: str
    name: str
    draw: Callable[[], Figure]


def pictures_of(
    paths: Sequence[Path], settings: PictureSettings, *, threads: int | None = None
) -> list[Picture]:
    """Plan the pictures of an event file, a model or a run folder, or the curves of several run folders.

    Everything but the drawing itself, and the classification behind ``confusion``, happens here, so that
    bad input is known before the first file is written.

    Parameters
    ----------
    paths : sequence of Path
    settings : PictureSettings
    threads : int, optional
        For ``confusion``; default: all processors.

    Raises
    ------
    DataError, SettingsError
        If a file is missing or damaged, or a picture that was asked for does not apply.
    """
    if len(paths) > 1:
        return [_curves(paths, _chosen(settings, ("curves",), f"{len(paths)} run folders"))]
    [path] = paths
    if path.is_dir():
        return _of_run(path, settings, threads)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if checkpoint.is_model(path):
        wanted = _chosen(settings, OF_MODEL, f"{path}, a model")
        return _of_model(path, wanted, f"{path.stem}-", settings, threads)
    return _of_events(path, settings)


def _chosen(settings: PictureSettings, known: tuple[str, ...], what: str) -> list[str]:
    for kind in settings.what:
        if kind not in known:
            raise SettingsError(f"{what}, has no {kind}; choose from {', '.join(known)}")
    return [kind for kind in known if not settings.what or kind in settings.what]


# Event files


@dataclass(frozen=True, eq=False)
class _Sample:
    """One labelled sample, and the data set it is from."""

    events: Events
    label: int
    shape: tuple[int, int, int]
    duration_us: int
    name: str

    @property
    def title(self) -> str:
        return f"{self.name}, label {self.label}"


def _sample_of(data: EventSet | EventSplit, where: str, split: str, number: int) -> _Sample:
    if number >= len(data):
        raise DataError(f"{where}: there is no sample {number}, split {split!r} has {len(data)}")
    return _Sample(
        data[number], int(data.labels[number]), data.shape, data.duration_us, f"{split} sample {number}"
    )


def _split_of(names: Iterable[str], wanted: str) -> str:
    known = list(names)
    return wanted or ("test" if "test" in known else known[0])


def _of_events(path: Path, settings: PictureSettings) -> list[Picture]:
    wanted = _chosen(settings, OF_EVENTS, f"{path}, an event file")
    with open_events(path) as file:
        split = _split_of(file.splits, settings.split)
        sample = _sample_of(file[split], str(path), split, settings.sample)
    if plots.is_flat(sample.shape):
        if pixels := [kind for kind in settings.what if kind != "raster"]:
            raise DataError(f"{path}: {pixels[0]} needs an input of height and width, this one is flat")
        wanted = ["raster"]
    if math.prod(sample.shape) > LARGEST:
        raise DataError(f"{path}: its input of {math.prod(sample.shape)} pixels is too large to be drawn")
    times, units = sample.events.times, sample.events.units
    title = f"{path.name}, {sample.title}"
    duration = sample.duration_us
    end = settings.end_ms * 1000 if settings.end_ms else float(times[-1]) if len(times) else float(duration)
    tau = 1000 * settings.tau_ms or duration / 5

    def raster() -> Figure:
        return plots.draw_raster(times, units, sample.shape, duration, title)

    def frames() -> Figure:
        return plots.draw_frames(times, units, sample.shape, duration, settings.windows, title)

    def surface() -> Figure:
        return plots.draw_surface(times, units, sample.shape, end, tau, title)

    draw = {"raster": raster, "frames": frames, "surface": surface}
    prefix = f"{path.stem}-{split}-{settings.sample}"
    return [Picture(kind, f"{prefix}-{kind}", draw[kind]) for kind in wanted]


# Run folders


def _of_run(folder: Path, settings: PictureSettings, threads: int | None) -> list[Picture]:
    wanted = _chosen(settings, OF_RUN, f"{folder}, a run folder")
    _check_run(folder)
    pictures = [_curves([folder], wanted)] if "curves" in wanted else []
    of_model = [kind for kind in wanted if kind != "curves"]
    if of_model:
        pictures += _of_model(folder / MODEL, of_model, "", settings, threads)
    return pictures


def _check_run(folder: Path) -> None:
    if not folder.exists():
        raise DataError(f"{folder}: no such file or folder")
    if not (folder / CONFIG).is_file():
        raise DataError(f"{folder}: not a run folder, it holds no {CONFIG}")


def _curves(folders: Sequence[Path], wanted: Sequence[str]) -> Picture:
    assert "curves" in wanted
    runs, architectures = {}, []
    names = [folder.resolve().name for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        _check_run(folder)
        state = checkpoint.load(folder / CHECKPOINT)
        epoch = state.info.get("epoch")
        if not isinstance(epoch, int):
            raise DataError(f"{folder / CHECKPOINT}: does not say how many epochs are done; restore it")
        history = read_metrics(folder / METRICS, epoch)
        if not history:
            raise DataError(f"{folder}: no epoch is done yet, there are no curves")
        runs[name if names.count(name) == 1 else str(folder)] = history
        architectures.append(state.network.architecture.text)
    title = architectures[0] if len(set(architectures)) == 1 else "learning curves"
    return Picture("curves", "curves", lambda: plots.draw_curves(runs, title))


# Models


@dataclass(frozen=True)
class _Source:
    """The data set that goes with a model: an event file, or the MNIST subset of the package."""

    path: str
    encoder: EncoderSettings
    seed: int
    split: str

    def read(self, use: Callable[[EventSet | EventSplit], T], threads: int | None) -> T:
        """Return what ``use`` makes of the split; an event file is open meanwhile."""
        if not self.path:
            with CpuBackend(threads) as backend:
                return use(load_split("", self.split, self.encoder, self.seed, backend))
        with open_events(self.path) as file:
            return use(file[self.split])


def _source_of(path: Path, settings: PictureSettings) -> _Source | None:
    """Where the samples for a model come from: as given, or as the configuration beside it says."""
    config = RunConfig()
    if not settings.data:
        if not (path.parent / CONFIG).is_file():
            return None
        config = RunConfig.from_toml(path.parent / CONFIG)
    where = settings.data or config.data.path
    split = settings.split or "test"
    if where:
        with open_events(where) as file:
            split = _split_of(file.splits, settings.split)
    return _Source(where, config.encoder, config.seed, split)


def _of_model(
    path: Path, wanted: list[str], prefix: str, settings: PictureSettings, threads: int | None
) -> list[Picture]:
    network = checkpoint.load_model(path)
    # Weights need data only to know that a flat input is an image.
    flat = plots.is_flat(network.architecture.shape)
    needs_data = settings.data or flat or wanted != ["weights"]
    source = _source_of(path, settings) if needs_data else None
    if source is None:
        if missing := [kind for kind in settings.what if kind in _NEED_DATA]:
            raise DataError(f"{path}: {missing[0]} needs samples; pass --data FILE")
        wanted = ["weights"]
    sample = None
    if source is not None and set(wanted) & {"spikes", "membrane", "weights"}:
        sample = source.read(lambda data: _fitting(network, data, source, settings), threads)
    pictures = []
    for kind in wanted:
        if kind == "weights":
            shape = sample.shape if sample is not None else network.architecture.shape
            pictures.append(_weights(network, shape, prefix, settings))
        elif kind == "confusion":
            assert source is not None
            source.read(network.check_fits, threads)
            name = f"{prefix}{source.split}-confusion"
            pictures.append(Picture(kind, name, lambda: _draw_confusion(network, source, threads)))
        else:
            assert source is not None
            assert sample is not None
            name = f"{prefix}{source.split}-{settings.sample}-{kind}"
            spikes = kind == "spikes"
            pictures.append(
                _spikes(network, sample, name) if spikes else _membrane(network, sample, name, settings)
            )
    return pictures


def _fitting(
    network: Network, data: EventSet | EventSplit, source: _Source, settings: PictureSettings
) -> _Sample:
    where = source.path or "the MNIST subset"
    network.check_fits(data, where)
    return _sample_of(data, where, source.split, settings.sample)


def _named(network: Network, layer: int) -> str:
    text = network.architecture.text.split("-")[layer]
    return f"layer {layer}, {text}" if "C" in text or "P" in text else f"layer {layer}"


def _titled(sample: _Sample, record: Record) -> str:
    return f"{sample.title}, predicted {record.prediction}"


def _spikes(network: Network, sample: _Sample, name: str) -> Picture:
    record = network.run(sample.events)
    layers = [Spikes("input", network.n_inputs, sample.events.times, sample.events.units)]
    layers += [
        Spikes(_named(network, number).replace(", ", "\n"), layer.n_out, spikes.times, spikes.units)
        for number, (layer, spikes) in enumerate(zip(network.layers, record.spikes, strict=True), 1)
    ]
    mark = {sample.label: "label"}
    mark[record.prediction] = "answer" if record.prediction != sample.label else "label and\nanswer"
    title = _titled(sample, record)
    return Picture("spikes", name, lambda: plots.draw_spikes(layers, sample.duration_us, title, mark))


def _membrane(network: Network, sample: _Sample, name: str, settings: PictureSettings) -> Picture:
    number = settings.layer or len(network.layers)
    layer = spiking_layer(network, number)
    record = network.run(sample.events)
    neurons = settings.neurons or _busiest(record.spikes[number - 1], layer.n_out)
    if len(neurons) > _MOST_TRACES:
        raise SettingsError(f"{len(neurons)} neurons do not fit into one picture; {_MOST_TRACES} do")
    traces = [
        Trace(str(trace.neuron), trace.times, trace.potential, trace.spikes)
        for trace in trace_membrane(network, sample.events, number, neurons)
    ]
    title = f"{_titled(sample, record)}; neurons of {_named(network, number)}"
    return Picture(
        "membrane",
        f"{name}-layer{number}",
        lambda: plots.draw_membrane(traces, layer.neuron.tau_us, sample.duration_us, title),
    )


def _busiest(spikes: Events, n: int) -> tuple[int, ...]:
    """The neurons that fired most, in ascending order; all of a layer that has few."""
    if n <= _TRACES + 4:
        return tuple(range(n))
    counts = np.bincount(spikes.units, minlength=n)
    return tuple(sorted(np.argsort(-counts, kind="stable")[:_TRACES].tolist()))


def _weights(
    network: Network, shape: tuple[int, int, int], prefix: str, settings: PictureSettings
) -> Picture:
    number = settings.layer or next(
        index for index, layer in enumerate(network.layers, 1) if isinstance(layer, SpikingLayer)
    )
    layer = spiking_layer(network, number)
    n = layer.weight.shape[1]
    what = "maps" if isinstance(layer, Conv2d) else "neurons"
    chosen = list(settings.neurons or range(min(n, _IMAGES)))
    if wrong := [neuron for neuron in chosen if not 0 <= neuron < n]:
        raise SettingsError(
            f"layer {number} of {network.architecture.text} has the {what} 0 to {n - 1}, not {wrong[0]}"
        )
    if len(chosen) > _MOST_IMAGES:
        raise SettingsError(f"{len(chosen)} {what} do not fit into one picture; {_MOST_IMAGES} do")
    weight = layer.weight[:, chosen]
    title = f"{network.architecture.text}: weights of layer {number}"
    if len(chosen) < n:
        title += f" ({len(chosen)} of {n} {what})"
    # A flat input is an image where the data say so.
    in_shape = shape if number == 1 else layer.in_shape

    def draw() -> Figure:
        if isinstance(layer, Conv2d):
            kernels = weight.reshape(layer.kernel, layer.kernel, layer.in_shape[0], len(chosen))
            return plots.draw_filters(kernels.transpose(3, 2, 0, 1), chosen, title)
        if plots.is_flat(in_shape) or in_shape[0] > 2:
            return plots.draw_matrix(weight, chosen, title)
        return plots.draw_receptive_fields(weight.T.reshape(len(chosen), *in_shape), chosen, title)

    return Picture("weights", f"{prefix}weights-layer{number}", draw)


def _draw_confusion(network: Network, source: _Source, threads: int | None) -> Figure:
    result = source.read(lambda data: evaluate(network, data, threads=threads), threads)
    title = (
        f"{network.architecture.text}: {100 * result.accuracy:.2f} % of {len(result.predictions)} "
        f"samples ({source.split})"
    )
    return plots.draw_confusion(result.confusion, title)

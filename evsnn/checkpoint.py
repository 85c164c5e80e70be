"""Models and checkpoints in HDF5: written whole or not at all, and never unpickled."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, SettingsError
from evsnn.files import write_atomically
from evsnn.hdf5 import decoded, fixed_text, open_dataset, readable_size, reading
from evsnn.layers.base import SpikingLayer
from evsnn.layers.settings import NeuronSettings
from evsnn.network.architecture import parse_architecture
from evsnn.network.build import Parameters, build_layers
from evsnn.network.network import Network
from evsnn.network.settings import NetworkSettings

FORMAT = "evsnn-model"
VERSION = 1
_CHUNK_BYTES = 1 << 22

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network and what is needed to go on training it.

    Parameters
    ----------
    network : Network
    info : mapping
        Plain values: where training stood, its configuration.
    arrays : mapping of str to ndarray of float32
        Optimiser state by name.
    history : sequence of mapping
        Metrics of every epoch so far, as plain values.
    """

    network: Network
    info: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Float32] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()


def save(path: str | os.PathLike[str], checkpoint: Checkpoint, *, keep: Path | None = None) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    path : path-like
    checkpoint : Checkpoint
    keep : Path, optional
        In the same folder: gets the checkpoint that was at ``path``.

    Raises
    ------
    DataError
        If the file cannot be written; an older one is then untouched.
    """
    network = checkpoint.network
    arrays = dict(checkpoint.arrays)
    for index, layer in enumerate(network.layers):
        if isinstance(layer, SpikingLayer):
            arrays[f"layer{index}/weight"] = layer.weight
            arrays[f"layer{index}/threshold"] = layer.threshold
    # Built in memory: HDF5 does not survive a disk that fills up under it.
    image = io.BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["format"] = fixed_text(FORMAT)
        file.attrs["version"] = np.int64(VERSION)
        file.attrs["architecture"] = fixed_text(network.architecture.text)
        file.attrs["settings"] = fixed_text(json.dumps(asdict(network.settings)))
        file.attrs["seed"] = np.uint64(network.seed)
        file.attrs["info"] = fixed_text(json.dumps(checkpoint.info))
        file.attrs["arrays"] = fixed_text(json.dumps(sorted(arrays)))
        for name, array in arrays.items():
            _store(file, name, array)
        if checkpoint.history:
            # As a data set: it grows, and HDF5 does not checksum a large attribute.
            _store(file, "history", np.frombuffer(json.dumps(list(checkpoint.history)).encode(), np.uint8))
    write_atomically(Path(path), image.getvalue(), keep=keep)


def save_model(path: str | os.PathLike[str], network: Network, info: Mapping[str, Any] | None = None) -> None:
    """Write a network without training state; errors as :func:`save`."""
    save(path, Checkpoint(network, info or {}))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a model or checkpoint.

    Raises
    ------
    DataError
        One line saying what is wrong with the file.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; a model is the model.h5 of a run folder")
    size = readable_size(path)
    with reading(str(path), "the model"):
        if not h5py.is_hdf5(path):
            raise DataError(
                f"{path}: not an evsnn model, not even HDF5; a model is the model.h5 of a run folder"
            )
        try:
            with h5py.File(path, "r", locking=False) as file:
                return _read(file, path, size)
        except SettingsError as error:
            raise DataError(f"{path}: {error}") from error


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file says of itself that it is a model or checkpoint; it may be damaged all the same."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(decoded(file.attrs.get("format")) == FORMAT)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return False


def load_model(path: str | os.PathLike[str]) -> Network:
    """Read a network; errors as :func:`load`."""
    return load(path).network


def _store(file: h5py.File, name: str, array: npt.NDArray[Any]) -> None:
    rows = max(1, _CHUNK_BYTES // max(array.nbytes // len(array), 1))
    chunks = (min(rows, len(array)), *array.shape[1:])
    file.create_dataset(name, data=array, chunks=chunks, fletcher32=True)


def _read(file: h5py.File, path: Path, size: int) -> Checkpoint:
    attributes = file.attrs
    if decoded(attributes.get("format")) != FORMAT:
        raise DataError(f"{path}: not an evsnn model; a model is the model.h5 of a run folder")
    if int(attributes["version"]) != VERSION:
        raise DataError(f"{path}: model version {attributes['version']}, this evsnn reads version {VERSION}")
    architecture = parse_architecture(decoded(attributes["architecture"]))
    settings = NetworkSettings(**json.loads(decoded(attributes["settings"])))
    arrays = {name: _array(file, name, path, size) for name in json.loads(decoded(attributes["arrays"]))}

    def stored(index: int, shape: tuple[int, int], neuron: NeuronSettings, gain: float) -> Parameters:
        weight = _expect(arrays, f"layer{index}/weight", shape, path)
        threshold = _expect(arrays, f"layer{index}/threshold", shape[1:], path)
        if not (threshold > 0).all():
            raise DataError(f"{path}: layer {index + 1} has a threshold that is not positive")
        return weight, threshold

    layers = build_layers(architecture, settings, stored)
    network = Network(architecture, layers, settings, int(attributes["seed"]))
    info = json.loads(decoded(attributes["info"]))
    if not isinstance(info, dict):
        raise DataError(f"{path}: attribute 'info' must be a JSON object")
    return Checkpoint(network, info, arrays, _history(file, path, size))


def _history(file: h5py.File, path: Path, size: int) -> list[dict[str, Any]]:
    if file.get("history", getlink=True) is None:
        return []
    with reading(str(path), "data set 'history'"):
        text: npt.NDArray[np.uint8] = open_dataset(file, "history", (np.uint8, 1), str(path), size)[()]
    history = json.loads(text.tobytes())
    if not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        raise DataError(f"{path}: data set 'history' must be a JSON list of objects")
    return history


def _expect(arrays: dict[str, Float32], name: str, shape: tuple[int, ...], path: Path) -> Float32:
    array = arrays.pop(name, None)
    if array is None or array.shape != shape:
        found = "is missing" if array is None else f"has shape {array.shape}"
        raise DataError(f"{path}: {name} {found}, the architecture needs {shape}")
    return array


def _array(file: h5py.File, name: str, path: Path, size: int) -> Float32:
    group, _, leaf = str(name).rpartition("/")
    if group not in file or not isinstance(file.get(group, getlink=True), h5py.HardLink):
        raise DataError(f"{path}: {name} is missing")
    ndim = 1 if leaf == "threshold" else 2
    where = f"{path}, {group}"
    with reading(where, f"data set {leaf!r}"):
        array: Float32 = open_dataset(file[group], leaf, (np.float32, ndim), where, size)[()]
    if not np.isfinite(array).all():
        raise DataError(f"{path}: {name} holds values that are not finite")
    return array

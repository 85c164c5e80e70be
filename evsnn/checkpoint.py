"""Models and checkpoints in HDF5: written whole or not at all, and never unpickled."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, SettingsError
from evsnn.files import write_atomically
from evsnn.hdf5 import (
    StoredArray,
    decoded,
    fixed_text,
    open_dataset,
    read_attribute,
    read_integer,
    read_json,
    readable_size,
    reading,
    refuse_links,
    why_not_open,
)
from evsnn.layers.base import SpikingLayer
from evsnn.layers.settings import NeuronSettings
from evsnn.network.architecture import parse_architecture
from evsnn.network.build import Parameters, build_layers
from evsnn.network.network import Network
from evsnn.network.settings import NetworkSettings

FORMAT = "evsnn-model"
VERSION = 1
_CHUNK_BYTES = 1 << 22
#: Bytes of metrics, of a million epochs or so.
_LONGEST_HISTORY = 1 << 28
_NAME = re.compile(r"\w+(/\w+)*", re.ASCII)
_FLOAT32_MAX = float(np.finfo(np.float32).max)

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
            file = h5py.File(path, "r", locking=False)
        except Exception as error:
            raise DataError(f"{path}: {why_not_open(error)}") from error
        try:
            with file:
                return _read(file, path, size)
        except SettingsError as error:
            raise DataError(f"{path}: {error}") from error


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file says of itself that it is a model or checkpoint; it may be damaged all the same."""
    try:
        size = readable_size(Path(path))
        with h5py.File(path, "r", locking=False) as file:
            return decoded(read_attribute(file, "format", size)) == FORMAT
    except Exception:  # reading it says what is wrong
        return False


def load_model(path: str | os.PathLike[str]) -> Network:
    """Read a network; errors as :func:`load`."""
    return load(path).network


def _store(file: h5py.File, name: str, array: npt.NDArray[Any]) -> None:
    rows = max(1, _CHUNK_BYTES // max(array.nbytes // len(array), 1))
    chunks = (min(rows, len(array)), *array.shape[1:])
    file.create_dataset(name, data=array, chunks=chunks, fletcher32=True)


def _read(file: h5py.File, path: Path, size: int) -> Checkpoint:
    stranger = "not an evsnn model; a model is the model.h5 of a run folder"
    if decoded(read_attribute(file, "format", size, stranger)) != FORMAT:
        raise DataError(f"{path}: {stranger}")
    version = read_integer(file, "version", size, 0, 1 << 31)
    if version != VERSION:
        raise DataError(f"{path}: model version {version}, this evsnn reads version {VERSION}")
    architecture = parse_architecture(decoded(read_attribute(file, "architecture", size)))
    settings = NetworkSettings(**read_json(file, "settings", size, dict))
    arrays = _arrays(file, path, size)

    def stored(index: int, shape: tuple[int, int], neuron: NeuronSettings, gain: float) -> Parameters:
        weight = _expect(arrays, f"layer{index}/weight", shape, path)
        threshold = _expect(arrays, f"layer{index}/threshold", shape[1:], path)
        if not (threshold > 0).all():
            raise DataError(f"{path}: layer {index + 1} has a threshold that is not positive")
        # Simulation sees weights over thresholds.
        if not np.abs(weight).max(initial=0.0) <= float(threshold.min(initial=1.0)) * _FLOAT32_MAX:
            raise DataError(f"{path}: layer {index + 1} has weights too large for its thresholds")
        return weight, threshold

    layers = build_layers(architecture, settings, stored)
    network = Network(architecture, layers, settings, read_integer(file, "seed", size, 0, (1 << 64) - 1))
    return Checkpoint(network, read_json(file, "info", size, dict), arrays, _history(file, path, size))


def _history(file: h5py.File, path: Path, size: int) -> list[dict[str, Any]]:
    if file.get("history", getlink=True) is None:
        return []
    stored = open_dataset(file, "history", (np.uint8, 1), str(path), size)
    if stored.nbytes > _LONGEST_HISTORY:
        raise DataError(f"{path}: data set 'history' is longer than any history")
    try:
        history = json.loads(stored.read(0, stored.shape[0]).tobytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: data set 'history' is no JSON") from error
    if not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        raise DataError(f"{path}: data set 'history' must be a JSON list of objects")
    return history


def _expect(arrays: dict[str, Float32], name: str, shape: tuple[int, ...], path: Path) -> Float32:
    array = arrays.pop(name, None)
    if array is None or array.shape != shape:
        found = "is missing" if array is None else f"has shape {array.shape}"
        raise DataError(f"{path}: {name} {found}, the architecture needs {shape}")
    return array


def _arrays(file: h5py.File, path: Path, size: int) -> dict[str, Float32]:
    names = read_json(file, "arrays", size, list)
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise DataError(f"{path}: attribute 'arrays' must hold names such as layer0/weight")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: attribute 'arrays' names an array twice")
    found = {name: _stored(file, name, path, size) for name in names}
    # Nothing is packed: together they are no larger than the file, whatever its links say.
    if sum(array.nbytes for array in found.values()) > size:
        raise DataError(f"{path}: its arrays claim more values than the file can hold")
    arrays: dict[str, Float32] = {}
    for name, array in found.items():
        arrays[name] = array.read(0, array.shape[0])
        if not np.isfinite(arrays[name]).all():
            raise DataError(f"{path}: {name} holds values that are not finite")
    return arrays


def _stored(file: h5py.File, name: str, path: Path, size: int) -> StoredArray:
    *groups, leaf = name.split("/")
    group: h5py.Group = file
    where = str(path)
    for part in groups:
        if group.get(part, getlink=True) is None:
            raise DataError(f"{path}: {name} is missing")
        refuse_links(group, part, where)
        group = group[part]
        if not isinstance(group, h5py.Group):
            raise DataError(f"{path}: {name} is missing")
        where = f"{path}, {group.name.lstrip('/')}"
    return open_dataset(group, leaf, (np.float32, 1 if leaf == "threshold" else 2), where, size)

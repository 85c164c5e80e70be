"""Models and checkpoints in HDF5: written whole or not at all, and never unpickled."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, EvsnnError
from evsnn.files import write_atomically
from evsnn.layers.dense import Dense
from evsnn.network.architecture import parse_architecture
from evsnn.network.network import Network
from evsnn.network.settings import NetworkSettings

FORMAT = "evsnn-model"
VERSION = 1

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
    """

    network: Network
    info: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Float32] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, atomically.

    Raises
    ------
    DataError
        If the file cannot be written; an older one is then untouched.
    """
    image = io.BytesIO()
    network = checkpoint.network
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["architecture"] = network.architecture.text
        file.attrs["settings"] = json.dumps(asdict(network.settings))
        file.attrs["seed"] = np.uint64(network.seed)
        file.attrs["info"] = json.dumps(checkpoint.info)
        for index, layer in enumerate(network.layers):
            _store(file, f"layers/{index}/weight", layer.weight)
            _store(file, f"layers/{index}/threshold", layer.threshold)
        for name, array in checkpoint.arrays.items():
            _store(file, f"optimiser/{name}", array)
    write_atomically(path, image.getvalue())


def save_model(path: Path, network: Network, info: Mapping[str, Any] | None = None) -> None:
    """Write a network without training state; errors as :func:`save`."""
    save(path, Checkpoint(network, info or {}))


def load(path: Path) -> Checkpoint:
    """Read a model or checkpoint.

    Raises
    ------
    DataError
        One line saying what is wrong with the file.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; a model is the model.h5 of a run folder")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except EvsnnError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not an intact evsnn model ({reason})") from error


def load_model(path: Path) -> Network:
    """Read a network; errors as :func:`load`."""
    return load(path).network


def _store(file: h5py.File, name: str, array: Float32) -> None:
    file.create_dataset(name, data=array, chunks=array.shape, fletcher32=True)


def _read(file: h5py.File, path: Path) -> Checkpoint:
    if file.attrs.get("format") != FORMAT:
        raise DataError(f"{path}: not an evsnn model; a model is the model.h5 of a run folder")
    if int(file.attrs["version"]) != VERSION:
        raise DataError(f"{path}: model version {file.attrs['version']}, this evsnn reads version {VERSION}")
    architecture = parse_architecture(str(file.attrs["architecture"]))
    settings = NetworkSettings(**json.loads(file.attrs["settings"]))
    neurons = settings.neurons(len(architecture.sizes))
    sizes = (architecture.n_inputs, *architecture.sizes)
    layers = []
    for index, neuron in enumerate(neurons):
        weight = _array(file, f"layers/{index}/weight", path, (sizes[index], sizes[index + 1]))
        threshold = _array(file, f"layers/{index}/threshold", path, (sizes[index + 1],))
        if not (threshold > 0).all():
            raise DataError(f"{path}: layer {index} has a threshold that is not positive")
        layers.append(Dense(weight, threshold, neuron))
    network = Network(architecture, layers, settings, int(file.attrs["seed"]))
    arrays: dict[str, Float32] = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = _array(file, f"optimiser/{name}", path)

    if "optimiser" in file:
        file["optimiser"].visititems(collect)
    return Checkpoint(network, json.loads(file.attrs["info"]), arrays)


def _array(file: h5py.File, name: str, path: Path, shape: tuple[int, ...] | None = None) -> Float32:
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"{path}: {name} is missing")
    if item.dtype != np.float32 or (shape is not None and item.shape != shape):
        raise DataError(
            f"{path}: {name} is {item.dtype} {item.shape}, the architecture needs float32 {shape}"
        )
    array: Float32 = item[()]
    if not np.isfinite(array).all():
        raise DataError(f"{path}: {name} holds values that are not finite")
    return array

"""MNIST: the subset in the package, the full set from the network, and folders of files in its format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path

from evsnn.datasets.idx import find_idx_folder, read_folder
from evsnn.datasets.images import ImageSet

#: Where the four files lie, tried in this order.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

#: SHA-256 of the four files as the mirrors serve them.
REGISTRY: Mapping[str, str] = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def embedded_mnist() -> dict[str, ImageSet]:
    """Read the subset of MNIST that the package ships.

    Returns
    -------
    dict of str to ImageSet
        ``train``: the first 500 of each digit among the first 50,000 training images; ``test``: the first 100
        of each digit among the test images.

    Raises
    ------
    DataError
        If the installation is damaged.
    """
    folder = files("evsnn.datasets") / "mnist_subset"
    with ExitStack() as stack:
        pairs = {
            split: (
                stack.enter_context(as_file(folder / f"{prefix}-images-idx3-ubyte.gz")),
                stack.enter_context(as_file(folder / f"{prefix}-labels-idx1-ubyte.gz")),
            )
            for split, prefix in (("train", "train"), ("test", "t10k"))
        }
        return read_folder(pairs)


def load_idx_folder(path: str | os.PathLike[str], limit: int | None = None) -> dict[str, ImageSet]:
    """Read a folder of MNIST-format files: MNIST, Fashion-MNIST, KMNIST, EMNIST and others, raw or gzip.

    Images are given as they are stored; EMNIST stores its own transposed.

    Parameters
    ----------
    path : path-like
        The folder; :func:`evsnn.datasets.idx.find_idx_folder` knows the names.
    limit : int, optional
        Keep only the first so many images of each split.

    Returns
    -------
    dict of str to ImageSet
        ``train`` and ``test``. The training labels decide the number of classes (see
        :func:`evsnn.datasets.idx.read_pair`).

    Raises
    ------
    DataError
        If a file is missing, cannot be read or does not fit the others.
    """
    return read_folder(find_idx_folder(path), limit)


def download_mnist(
    cache: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] = MIRRORS,
    *,
    registry: Mapping[str, str] = REGISTRY,
    progress: bool = False,
    timeout_s: float = 30.0,
) -> Path:
    """Download the four files of MNIST, unless they are there already.

    Parameters
    ----------
    cache : path-like, optional
        Folder to keep the files in; by default ``mnist`` in the folder that ``EVSNN_CACHE`` names, else in
        the user's cache folder.
    mirrors : sequence of str
        Addresses ending in a slash, tried in turn.
    registry : mapping of str to str
        SHA-256 of each file, by name.
    progress : bool
        Show a progress bar on stderr.
    timeout_s : float
        Seconds of silence after which a mirror is given up.

    Returns
    -------
    Path
        The folder with the four files, each checked against its SHA-256.

    Raises
    ------
    DataError
        If a file can be had from no mirror, or the cache cannot be written.
    """
    from evsnn.datasets.download import default_cache, fetch_files  # noqa: PLC0415 - keeps the network stack out

    folder = default_cache() / "mnist" if cache is None else Path(cache)
    return fetch_files(
        registry,
        mirrors,
        folder,
        remedy="download the four files by hand and name their folder instead",
        progress=progress,
        timeout_s=timeout_s,
    )

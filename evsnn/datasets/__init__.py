"""Data sets: labelled images and recordings, read from files or downloaded."""

from evsnn.datasets.idx import find_idx_folder, read_images, read_labels, read_pair
from evsnn.datasets.images import ImageSet
from evsnn.datasets.mnist import download_mnist, embedded_mnist, load_idx_folder

__all__ = [
    "ImageSet",
    "download_mnist",
    "embedded_mnist",
    "find_idx_folder",
    "load_idx_folder",
    "read_images",
    "read_labels",
    "read_pair",
]

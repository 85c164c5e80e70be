"""Labelled images to labelled events: in memory, or streamed into an event file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.datasets.images import ImageSet
from evsnn.encoders.encode import Encoder
from evsnn.encoders.settings import EncoderSettings, SaccadeSettings
from evsnn.errors import SettingsError
from evsnn.events.core import EventSet
from evsnn.events.queue import HostQueue
from evsnn.events.writer import EventWriter

#: Images encoded at a time: what bounds the memory of a conversion. Saccades make ten times the events.
BLOCK = 2000
SACCADE_BLOCK = 200

UInt32 = npt.NDArray[np.uint32]


def pack(queue: HostQueue) -> tuple[UInt32, UInt32]:
    """Times and units of a queue without the gaps between its slots."""
    offsets = np.zeros(len(queue) + 1, np.int64)
    np.cumsum(queue.count, out=offsets[1:])
    index = np.arange(offsets[-1]) + np.repeat(queue.start - offsets[:-1], queue.count)
    return queue.times[index], queue.units[index]


def _block(encoder: EncoderSettings | SaccadeSettings) -> int:
    return BLOCK if isinstance(encoder, EncoderSettings) else SACCADE_BLOCK


def encode_images(
    data: ImageSet, encoder: EncoderSettings | SaccadeSettings, seed: int, backend: CpuBackend
) -> EventSet:
    """Draw the events of a set of images, kept in memory together with the images.

    Parameters
    ----------
    data : ImageSet
    encoder : EncoderSettings or SaccadeSettings
    seed : int
    backend : CpuBackend
    """
    draw = Encoder(encoder, seed, backend)
    times, units, counts = [np.empty(0, np.uint32)], [np.empty(0, np.uint32)], [np.zeros(1, np.int64)]
    block = _block(encoder)
    for start in range(0, len(data), block):
        samples = np.arange(start, min(start + block, len(data)))
        queue = draw.draw(data.images, samples).fetch(backend)
        packed = pack(queue)
        times.append(packed[0])
        units.append(packed[1])
        counts.append(queue.count)
    return EventSet(
        np.concatenate(times),
        np.concatenate(units),
        np.cumsum(np.concatenate(counts)),
        data.labels,
        encoder.event_shape(*data.shape[1:]),
        encoder.duration_us,
        data.classes,
        data.images,
        encoder.to_dict(),
    )


def convert_images(
    splits: Mapping[str, ImageSet],
    path: Path,
    encoder: EncoderSettings | SaccadeSettings,
    *,
    seed: int = 0,
    validation: int = 0,
    force: bool = False,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Draw the events of labelled images into an event file, images included.

    Parameters
    ----------
    splits : mapping of str to ImageSet
        ``train`` and ``test``.
    path : Path
        Event file to write; it appears when it is complete.
    encoder : EncoderSettings or SaccadeSettings
    seed : int
    validation : int
        Last training images that become the split ``validation``.
    force : bool
        Replace a file that is there.
    threads : int, optional
        Default: all processors. The file does not depend on it.
    report : callable, optional
        Called with the number of images done.

    Returns
    -------
    dict of str to int
        Number of events of each split.

    Raises
    ------
    SettingsError
        If the validation split leaves nothing to train on.
    DataError
        If the file exists or cannot be written.
    """
    parts = dict(splits)
    train = parts["train"]
    if not 0 <= validation < len(train):
        raise SettingsError(
            f"validation must lie in 0 to {len(train) - 1}, one less than the training images"
        )
    if validation:
        edge = len(train) - validation
        parts["train"] = train.part(0, edge)
        parts["validation"] = train.part(edge, len(train))
    events = dict.fromkeys(parts, 0)
    source = {name: digest for part in splits.values() for name, digest in part.source.items()}
    with (
        CpuBackend(threads) as backend,
        EventWriter(
            path,
            shape=encoder.event_shape(*train.shape[1:]),
            duration_us=encoder.duration_us,
            classes=train.classes,
            source=source,
            encoder=encoder.to_dict(),
            seed=seed,
            force=force,
        ) as writer,
    ):
        draw = Encoder(encoder, seed, backend)
        block = _block(encoder)
        for name, part in parts.items():
            writer.begin_split(name, with_images=True, image_shape=part.shape[1:])
            for start in range(0, len(part), block):
                stop = min(start + block, len(part))
                queue = draw.draw(part.images, np.arange(start, stop)).fetch(backend)
                writer.append(
                    *pack(queue), queue.count, part.labels[start:stop], images=part.images[start:stop]
                )
                events[name] += int(queue.count.sum())
                if report is not None:
                    report(stop - start)
    return events

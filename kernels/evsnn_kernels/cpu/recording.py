"""Recordings in the format of N-MNIST: their bytes, the noise and the filters (docs/model.md, S17)."""

from __future__ import annotations

from typing import Final

import numpy as np

from evsnn_kernels.jit import cpu_kernel, cpu_part
from evsnn_kernels.layout import I64, NEVER, PURPOSE_NOISE, U8, U32, U64, Scalar
from evsnn_kernels.spec.random import philox
from evsnn_kernels.spec.recording import event_polarity, event_time, noise_time, pixel_ready

EVENT_BYTES: Final = 5
#: Pixels along each side of the sensor.
SIDE: Final = 34
PIXELS: Final = SIDE * SIDE
#: ``y`` of a record that is no event: later times count from 2^13 us further on.
MARKER: Final = 240
MARKER_US: Final = 1 << 13
#: Noise is drawn for 2^16 microseconds at a time.
SEGMENT_BITS: Final = 16

# What is wrong with a recording.
FAULT_NONE: Final = 0
FAULT_PIXEL: Final = 1
FAULT_TIME_BACK: Final = 2
FAULT_TIME_LARGE: Final = 3

#: Simultaneous events up to which insertion sort is fastest; more are counted into place, which stays linear.
_FEW = 48


@cpu_kernel
def check(
    data: U8,
    begin: I64,
    end: I64,
    out_fault: I64,
    out_events: I64,
    out_last: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Check recordings first:last and measure them.

    Parameters
    ----------
    data : uint8 (n_bytes,)
        The files of all recordings.
    begin, end : int64 (n_recordings,)
        Recording s is ``data[begin[s] : end[s]]``, whole records of five bytes.
    out_fault : int64 (n_recordings, 4)
        Of the first record that is wrong: ``FAULT_...``, index of the record, and x and y, or the time before
        and its own.
    out_events : int64 (n_recordings,)
        Number of events, without markers.
    out_last : int64 (n_recordings,)
        Time of the last event in microseconds, -1 without events.
    """
    for s in range(first, last):
        out_fault[s, :] = 0
        previous = np.int64(-1)
        shift = np.int64(0)
        events = 0
        for at in range(begin[s], end[s], EVENT_BYTES):
            x, y = np.int64(data[at]), np.int64(data[at + 1])
            if y == MARKER:
                shift += MARKER_US
                continue
            time = shift + event_time(data[at + 2], data[at + 3], data[at + 4])
            fault = FAULT_NONE
            a, b = previous, time
            if x >= SIDE or y >= SIDE:
                fault = FAULT_PIXEL
                a, b = x, y
            elif time < previous:
                fault = FAULT_TIME_BACK
            elif time > 0xFFFFFFFF:
                fault = FAULT_TIME_LARGE
            if fault != FAULT_NONE:
                out_fault[s, 0] = fault
                out_fault[s, 1] = (at - begin[s]) // EVENT_BYTES
                out_fault[s, 2] = a
                out_fault[s, 3] = b
                break
            previous = time
            events += 1
        out_events[s] = events
        out_last[s] = previous


@cpu_part
def _order_ties(keys: U64, total: Scalar, scratch: U64, slots: I64) -> None:
    """Sort keys (time << 32 | unit) whose times are sorted already; linear, however many are simultaneous."""
    low = 0
    while low < total:
        time = keys[low] >> np.uint64(32)
        high = low + 1
        while high < total and keys[high] >> np.uint64(32) == time:
            high += 1
        if high - low <= _FEW:
            for e in range(low + 1, high):
                key = keys[e]
                at = e
                while at > low and keys[at - 1] > key:
                    keys[at] = keys[at - 1]
                    at -= 1
                keys[at] = key
        else:
            slots[:] = 0
            for e in range(low, high):
                slots[np.int64(keys[e] & np.uint64(0xFFFFFFFF))] += 1
            at = low
            for unit in range(slots.shape[0]):
                for _ in range(slots[unit]):
                    scratch[at] = (time << np.uint64(32)) | np.uint64(unit)
                    at += 1
            for e in range(low, high):
                keys[e] = scratch[e]
        low = high


@cpu_part
def _order_segment(keys: U64, low: Scalar, high: Scalar, scratch: U64, slots: I64) -> None:
    """Sort keys low:high of one noise segment by time, equal times in the order they came in."""
    for turn in range(SEGMENT_BITS // 8):
        bit = np.uint64(32 + 8 * turn)
        slots[:257] = 0
        for e in range(low, high):
            slots[np.int64((keys[e] >> bit) & np.uint64(255)) + 1] += 1
        for b in range(256):
            slots[b + 1] += slots[b]
        for e in range(low, high):
            digit = np.int64((keys[e] >> bit) & np.uint64(255))
            scratch[slots[digit]] = keys[e]
            slots[digit] += 1
        for e in range(low, high):
            keys[e] = scratch[e - low]


@cpu_kernel
def select(
    data: U8,
    begin: I64,
    end: I64,
    counter: I64,
    stream: I64,
    window_start: Scalar,
    window_stop: Scalar,
    most: Scalar,
    channels: Scalar,
    margin: Scalar,
    refractory: Scalar,
    noise_table: U32,
    key_low: Scalar,
    key_high: Scalar,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Events of recordings first:last, with noise, filtered, sorted by (time, unit).

    Parameters
    ----------
    data, begin, end
        As in :func:`check`, which found no fault in them.
    counter, stream : int64 (n_recordings,)
        Counters of each recording's random numbers.
    window_start, window_stop : int64
        Events at window_start <= time < window_stop are kept; times count from window_start.
    most : int64
        Largest number of events of a recording.
    channels : int64
        2, or 1 where both polarities share a channel.
    margin : int64
        Pixels cut off along each side.
    refractory : int64
        Microseconds of the filter, 0 for none.
    noise_table : uint32 (n,)
        Cumulative probabilities of 0, 1, ... noise events of one pixel and polarity in one segment, times
        2^32; empty for no noise.
    key_low, key_high : uint64
        Seed of the random numbers.
    out_times, out_units, out_slot, out_count
        Output queue.
    """
    side = SIDE - 2 * margin
    slots = np.empty(2 * PIXELS, np.int64)
    last_kept = np.empty(PIXELS, np.int64)
    keys = np.empty(8192, np.uint64)
    scratch = np.empty(8192, np.uint64)
    noise = np.empty(1024, np.uint64)
    for s in range(first, last):
        size = (end[s] - begin[s]) // EVENT_BYTES
        if size > keys.shape[0]:
            keys = np.empty(2 * size, np.uint64)
        if size > scratch.shape[0]:
            scratch = np.empty(2 * size, np.uint64)
        shift = np.int64(0)
        time = np.int64(-1)
        n = 0
        for at in range(begin[s], end[s], EVENT_BYTES):
            if data[at + 1] == MARKER:
                shift += MARKER_US
                continue
            time = shift + event_time(data[at + 2], data[at + 3], data[at + 4])
            pixel = np.int64(data[at + 1]) * SIDE + np.int64(data[at])
            unit = event_polarity(data[at + 2]) * (channels - 1) * PIXELS + pixel
            keys[n] = (np.uint64(time) << np.uint64(32)) | np.uint64(unit)
            n += 1
        _order_ties(keys, n, scratch, slots)

        extra = 0
        if noise_table.shape[0] > 0 and n > 0:
            end_time = time
            for segment in range((end_time >> SEGMENT_BITS) + 1):
                low = extra
                for i in range(2 * PIXELS):
                    # In the order of the units, so that a stable sort by time alone suffices.
                    drawn = i if channels == 2 else (i & 1) * PIXELS + (i >> 1)
                    unit = i if channels == 2 else i >> 1
                    index = segment * 2 * PIXELS + drawn
                    word, w1, w2, w3 = philox(index, counter[s], stream[s], PURPOSE_NOISE, key_low, key_high)
                    count = np.int64(0)
                    while count < noise_table.shape[0] and word >= np.uint64(noise_table[count]):
                        count += 1
                    if extra + count > noise.shape[0]:
                        grown = np.empty(2 * (extra + count), np.uint64)
                        grown[:extra] = noise[:extra]
                        noise = grown
                    w0 = word
                    for j in range(count):
                        # The first block's first word decided how many events there are.
                        lane = (j + 1) & 3
                        if lane == 0:
                            block = (j + 1) >> 2
                            w0, w1, w2, w3 = philox(
                                index,
                                counter[s],
                                stream[s],
                                PURPOSE_NOISE + (block << 8),
                                key_low,
                                key_high,
                            )
                        word = w0 if lane == 0 else (w1 if lane == 1 else (w2 if lane == 2 else w3))
                        time = noise_time(segment, word)
                        if time <= end_time:
                            noise[extra] = (np.uint64(time) << np.uint64(32)) | np.uint64(unit)
                            extra += 1
                if extra - low > scratch.shape[0]:
                    scratch = np.empty(2 * (extra - low), np.uint64)
                _order_segment(noise, low, extra, scratch, slots)

        last_kept[:] = NEVER
        slot = out_slot[s]
        room = out_slot[s + 1] - slot
        kept = 0
        e = 0
        f = 0
        while e < n or f < extra:
            if f == extra or (e < n and keys[e] <= noise[f]):
                key = keys[e]
                e += 1
            else:
                key = noise[f]
                f += 1
            time = np.int64(key >> np.uint64(32))
            unit = np.int64(key & np.uint64(0xFFFFFFFF))
            channel = unit // PIXELS
            pixel = unit - channel * PIXELS
            if refractory > 0:
                if not pixel_ready(time, last_kept[pixel], refractory):
                    continue
                last_kept[pixel] = time
            if time < window_start:
                continue
            if time >= window_stop or kept == most:
                break
            y = pixel // SIDE
            x = pixel - y * SIDE - margin
            y -= margin
            if x < 0 or y < 0 or x >= side or y >= side:
                continue
            if kept < room:
                out_times[slot + kept] = np.uint32(time - window_start)
                out_units[slot + kept] = np.uint32((channel * side + y) * side + x)
            kept += 1
        out_count[s] = kept

"""Oracle for N-MNIST recordings: plain Python, written from the format and from clause S17."""

import math

SIDE = 34


def read_records(data):
    """Events (t, x, y, p) of the bytes of a recording, in the order of the file."""
    events, added = [], 0
    for at in range(0, len(data), 5):
        number = int.from_bytes(data[at : at + 5], "big")
        x, y = number >> 32, number >> 24 & 0xFF
        p, t = number >> 23 & 1, number & 0x7FFFFF
        if y == 240:
            added += 8192
        else:
            events.append((t + added, x, y, p))
    return events


def write_records(events):
    """Bytes of a recording; an event of y = 240 is a marker."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for t, x, y, p in events)


def is_recording(data):
    """Whether bytes are what S17 allows."""
    if not data or len(data) % 5:
        return False
    events = read_records(data)
    inside = all(x < SIDE and y < SIDE for _, x, y, _ in events)
    times = [event[0] for event in events]
    return bool(events) and inside and times == sorted(times) and times[-1] < 2**32


def select(events, *, refractory_us=0, start_us=0, stop_us=None, crop=False, first=0, merge=False, noise=()):
    """Times and units of what is left of a recording after noise (more events) and filters."""

    def unit(event):
        _, x, y, p = event
        return ((0 if merge else p) * SIDE + y) * SIDE + x

    last, times, units = {}, [], []
    for event in sorted([*events, *noise], key=lambda event: (event[0], unit(event))):
        t, x, y, p = event
        if refractory_us:
            if (x, y) in last and t - last[x, y] < refractory_us:
                continue
            last[x, y] = t
        if t < start_us or (stop_us is not None and t >= stop_us):
            continue
        if crop and not (3 <= x < 31 and 3 <= y < 31):
            continue
        if first and len(times) == first:
            break
        side, margin = (28, 3) if crop else (SIDE, 0)
        times.append(t - start_us)
        units.append(((0 if merge else p) * side + y - margin) * side + x - margin)
    return times, units


def philox(counter, key):
    """Philox4x32-10 in Python's own integers."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = right >> 32 ^ b ^ k0, right & 0xFFFFFFFF, left >> 32 ^ d ^ k1, left & 0xFFFFFFFF
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return a, b, c, d


def noise_events(rate_hz, last_us, *, seed, number, stream, purpose=5):
    """Noise (t, x, y, p) of one recording whose last event is at ``last_us``."""
    mean = rate_hz / 2 * 65536 / 1e6
    key = seed & 0xFFFFFFFF, seed >> 32
    events = []
    for segment in range((last_us >> 16) + 1):
        for unit in range(2 * SIDE * SIDE):
            counter = segment * 2 * SIDE * SIDE + unit, number, stream
            words = list(philox((*counter, purpose), key))
            count, probability, below = 0, math.exp(-mean), 0.0
            while words[0] >= math.floor((below + probability) * 2**32):
                below += probability
                count += 1
                probability *= mean / count
            for block in range(1, count // 4 + 1):
                words += philox((*counter, purpose + (block << 8)), key)
            p, pixel = divmod(unit, SIDE * SIDE)
            times = [(segment << 16) + (word >> 16) for word in words[1 : count + 1]]
            events += [(t, pixel % SIDE, pixel // SIDE, p) for t in times if t <= last_us]
    return events

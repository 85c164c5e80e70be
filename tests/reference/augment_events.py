"""Oracle for distorted recordings: one event after the other, written from clause S21."""

import math

import numpy as np

from reference.recording import philox

PURPOSE = 10
f32 = np.float32


def share(word):
    """A number in [0, 1) from the leading 24 bits of a random word."""
    return f32(word >> 8) / f32(1 << 24)


def signed(word):
    return f32(2) * share(word) - f32(1)


def either_side(coordinate, word):
    """Whole pixel below or above, by chance in proportion to nearness."""
    below = math.floor(coordinate)
    return below + int(share(word) < coordinate - f32(below))


def bend(nodes, place, size):
    """Bilinear value at a pixel of a 5 x 5 grid of numbers that spans the sensor."""
    at = [f32(p) * (f32(4) / f32(n - 1)) for p, n in zip(place, size, strict=True)]
    low = [min(int(a), 3) for a in at]
    part = [a - f32(b) for a, b in zip(at, low, strict=True)]
    rows = []
    for line in (low[0], low[0] + 1):
        left, right = nodes[5 * line + low[1]], nodes[5 * line + low[1] + 1]
        rows.append(left + part[1] * (right - left))
    return rows[0] + part[0] * (rows[1] - rows[0])


def distort(times, units, shape, duration, *, sample, epoch, seed, **strengths):
    """Times and units of one distorted recording.

    Strengths are shift, rotation (degrees), shear, scale, elastic, time_scale, jitter_us, flip, drop and
    window_ms; the sensor has more than one pixel along both axes.
    """
    height, width = shape[1:]
    key = seed & 0xFFFFFFFF, seed >> 32
    amount = {
        name: f32(strengths.get(name, 0)) for name in ("shift", "shear", "scale", "elastic", "flip", "drop")
    }
    words = [word for block in range(3) for word in philox((block, sample, epoch, PURPOSE + 256), key)]

    move = [amount["shift"] * signed(word) for word in words[0:2]]
    sizes = [f32(1) + amount["scale"] * signed(word) for word in words[2:4]]
    t = f32(math.tan(math.radians(strengths.get("rotation", 0)) / 2)) * signed(words[4])
    cosine, sine = (f32(1) - t * t) / (f32(1) + t * t), f32(2) * t / (f32(1) + t * t)
    shears = [amount["shear"] * signed(word) for word in words[5:7]]
    stretch = np.array([[sizes[0], shears[0]], [shears[1], sizes[1]]])
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    matrix = [[sum(rotation[i, k] * stretch[k, j] for k in range(2)) for j in range(2)] for i in range(2)]
    flipped = share(words[7]) < amount["flip"]
    dropped = amount["drop"] * share(words[8])
    speed = 1.0 + float(strengths.get("time_scale", 0)) * float(signed(words[9]))

    window = round(1000 * strengths.get("window_ms", 0))
    window = 0 if window >= duration else window
    opens = words[10] * (duration - window + 1) >> 32 if window else 0

    nodes = [philox((3 + node, sample, epoch, PURPOSE + 256), key)[:2] for node in range(25)]
    bends = [[amount["elastic"] * signed(pair[axis]) for pair in nodes] for axis in range(2)]

    centre = [f32(height - 1) / f32(2), f32(width - 1) / f32(2)]
    jitter = strengths.get("jitter_us", 0)
    found = []
    for number, (time, unit) in enumerate(zip(times.tolist(), units.tolist(), strict=True)):
        if window and not opens <= time < opens + window:
            continue
        word = philox((number, sample, epoch, PURPOSE), key)
        channel, pixel = divmod(unit, height * width)
        place = [f32(at) - middle for at, middle in zip(divmod(pixel, width), centre, strict=True)]
        to = []
        for axis in range(2):
            own, other = matrix[axis][axis], matrix[axis][1 - axis]
            coordinate = own * place[axis] + other * place[1 - axis] + (centre[axis] + move[axis])
            if amount["elastic"] > 0:
                coordinate += bend(bends[axis], divmod(pixel, width), (height, width))
            to.append(either_side(coordinate, word[2 + axis]))
        new_time = int((time - opens) * speed) + (word[1] * (2 * jitter + 1) >> 32) - jitter
        kept = share(word[0]) >= dropped and 0 <= new_time <= duration
        if kept and 0 <= to[0] < height and 0 <= to[1] < width:
            channel = 1 - channel if flipped else channel
            found.append((new_time, (channel * height + to[0]) * width + to[1]))
    found.sort()
    return [time for time, _ in found], [unit for _, unit in found]

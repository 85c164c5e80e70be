"""Oracle for saccade recordings: plain loops, one pixel at a time, written from clauses S14 and S20.

float32 numbers are rounded after every operation, as S16 asks, so that events can be compared one by one.
"""

import numpy as np

F = np.float32
PIXEL_STATE, CAMERA, NOISE, THRESHOLD = 6, 7, 8, 9


def philox(counter, key):
    """Four words of Philox4x32-10 (Salmon et al. 2011) in Python's whole numbers."""
    x, k, mask = list(counter), list(key), 2**32 - 1
    for _ in range(10):
        p, q = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [q >> 32 ^ x[1] ^ k[0], q & mask, p >> 32 ^ x[3] ^ k[1], p & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return x


def uniform(word):
    return F(word >> 8) * F(2.0**-24)


def deviate(u, v):
    """Mean 0, standard deviation 1, from two words."""
    return F(np.sqrt(6.0)) * (uniform(u) + uniform(v) - F(1))


def blurred(image, taps, reach):
    """The image after the optics, with ``reach`` pixels more on each side."""
    radius = len(taps) // 2
    wide = np.pad(image.astype(np.float32), reach + radius)
    height, width = image.shape
    across = np.zeros((height + 2 * (reach + radius), width + 2 * reach), np.float32)
    for i, tap in enumerate(taps):
        across += tap * wide[:, i : i + width + 2 * reach]
    both = np.zeros((height + 2 * reach, width + 2 * reach), np.float32)
    for i, tap in enumerate(taps):
        both += tap * across[i : i + height + 2 * reach]
    return both


def bilinear(picture, y, x):
    j, i = int(np.floor(y)), int(np.floor(x))
    v, u = y - F(j), x - F(i)
    rows = [picture[j + k, i] + u * (picture[j + k, i + 1] - picture[j + k, i]) for k in (0, 1)]
    return rows[0] + v * (rows[1] - rows[0])


def log_of(table, grey):
    low = min(int(grey), len(table) - 2)
    return table[low] + (grey - F(low)) * (table[low + 1] - table[low])


class Pixel:
    """The comparator of one pixel and what it has emitted: (time, polarity)."""

    def __init__(self, nominal, jitter, refractory, words):
        self.nominal, self.jitter, self.refractory, self.words = nominal, jitter, refractory, words
        self.events = []
        self.asleep_until = None
        self.reference = F(0)
        self.draw()

    def draw(self):
        """Thresholds (OFF, ON) until the next event."""
        w = self.words(len(self.events))
        on, off = (F(1) + self.jitter * deviate(*pair) for pair in (w[:2], w[2:]))
        self.threshold = self.nominal[0] * off, self.nominal[1] * on

    def emit(self, time, polarity):
        self.events.append((time, polarity))
        if self.refractory:
            self.asleep_until = time + self.refractory
        self.draw()

    def follow(self, begin, step, low, high, noise):
        """Go through a step in which the level runs straight from low to high; noise is (time, polarity)s."""

        def level(time):
            return low + F(time - begin) / F(step) * (high - low)

        now, noise = begin, list(noise)
        while True:
            end = noise[0][0] if noise else begin + step
            if self.asleep_until is not None:
                wakes = self.asleep_until
                if wakes < end or (noise and wakes == end):
                    self.asleep_until, self.reference, now = None, level(wakes), wakes
                elif noise:
                    noise.pop(0)
                else:
                    return
                continue
            last = level(end) if noise else high
            up = self.reference + self.threshold[1]
            down = self.reference - self.threshold[0]
            if high > low and last >= up:
                goal, polarity = up, 1
            elif high < low and last <= down:
                goal, polarity = down, 0
            elif noise:
                now, polarity = noise.pop(0)
                self.reference = last
                self.emit(now, polarity)
                continue
            else:
                return
            time = begin + int((goal - low) / (high - low) * F(step))
            now = max(now, min(time, begin + step - 1))
            self.reference = goal
            self.emit(now, polarity)


def record(image, sample, epoch, seed, settings, tables, margin=3):
    """Times and units of one recording of an image."""
    height, width = (side + 2 * margin for side in image.shape)
    key = seed & 0xFFFFFFFF, seed >> 32
    step, steps = settings.step_us, len(tables.path) - 1
    picture = blurred(image, tables.taps, tables.reach)
    w = philox((height * width, sample, epoch, PIXEL_STATE), key)
    away = [F(settings.wander) * (F(2) * uniform(word) - F(1)) for word in w[:2]]
    start = w[2] * (round(settings.lag_ms * 1000) + 1) >> 32
    found = []
    for pixel in range(height * width):
        y, x = divmod(pixel, width)
        w = philox((pixel, sample, epoch, PIXEL_STATE), key)
        noise = []
        for n in range(int(np.searchsorted(tables.noise, w[1], side="right"))):
            stamp, kind, _, _ = philox((pixel, sample, epoch, NOISE + 256 * n), key)
            noise.append((stamp * steps * step >> 32, int(kind < tables.on_share)))
        noise.sort()
        own = (pixel, 0, 0, CAMERA), (settings.camera, 0)
        c = philox(*own) if settings.camera else philox((pixel, sample, epoch, CAMERA), key)
        shared, apart = F(0.9) * deviate(*c[:2]), F(np.sqrt(0.19)) * deviate(*c[2:])
        nominal = (
            F(settings.threshold_off) * (F(1) + F(settings.mismatch) * (shared - apart)),
            F(settings.threshold_on) * (F(1) + F(settings.mismatch) * (shared + apart)),
        )

        def words(number, pixel=pixel):
            return philox((pixel, sample, epoch, THRESHOLD + 256 * number), key)

        one = Pixel(nominal, F(settings.jitter), round(settings.refractory_ms * 1000), words)
        before = None
        for k in range(steps + 1):
            at = [
                F(place - margin + tables.reach) - (tables.path[k, axis] + away[axis])
                for axis, place in enumerate((y, x))
            ]
            target = log_of(tables.log_luminance, bilinear(picture, *at))
            if before is None:
                before = target
                off, on = one.threshold
                one.reference = before + off - uniform(w[0]) * (on + off)
                continue
            after = before + tables.share * (target - before)
            begin = (k - 1) * step
            within = [event for event in noise if begin <= event[0] < begin + step]
            one.follow(begin, step, before, after, within)
            before = after
        found += [
            ((time - start) // settings.resolution_us * settings.resolution_us, c * height * width + pixel)
            for time, c in one.events
            if time >= start
        ]
    return sorted(found)

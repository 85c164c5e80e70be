"""Simulated threads that run one at a time, from barrier to barrier, in an order drawn anew each time.

Left to themselves, the threads of the simulator interleave much the same way every time, and a missing
barrier may stay unseen. Here a thread that needs what another writes in the same stretch gets it or not by
chance. A card stops, or worse, where some threads wait at a barrier that others never reach: an error here.
"""

from __future__ import annotations

import contextlib
import random
import threading
from typing import ClassVar
from unittest import mock

import numpy as np
from numba.cuda.simulator import kernel


class _Thread(kernel.BlockThread):
    """A thread that runs one simulated thread after the other: to start one takes longer than it runs."""

    def __init__(self):
        threading.Thread.__init__(self, daemon=True)
        self.turn = threading.Semaphore(0)
        self.turn_over = threading.Semaphore(0)
        self.start()

    def become(self, work, block, point):
        """Be a thread of a block that has not begun."""
        self.work, self.blockIdx, self.threadIdx = work, kernel.Dim3(*block), kernel.Dim3(*point)
        self.exception, self.abort, self.ended = None, False, False

    def run(self):
        while True:
            self.turn.acquire()
            if self.abort:
                return
            try:
                self.work()
            except Exception as error:
                self.exception = error
            self.ended = True
            self.turn_over.release()

    def take_turn(self):
        """Let the thread run to its next barrier, or its end."""
        self.turn.release()
        self.turn_over.acquire()
        if self.exception:
            raise self.exception

    def syncthreads(self):
        self.turn_over.release()
        self.turn.acquire()
        if self.abort:
            raise RuntimeError("another thread failed")


class _Block(kernel.BlockManager):
    draw = random.Random(0)
    idle: ClassVar[list[_Thread]] = []

    def run(self, grid_point, *arguments):
        points = list(np.ndindex(*self._block_dim))
        # After an error its threads are not used again: they may wait at a barrier.
        threads = [self.idle.pop() if self.idle else _Thread() for _ in points]
        for thread, point in zip(threads, points, strict=True):
            thread.become(lambda: self._f(*arguments), grid_point, point)
        try:
            while not all(thread.ended for thread in threads):
                for thread in self.draw.sample(threads, len(threads)):
                    thread.take_turn()
                assert len({thread.ended for thread in threads}) == 1, "a barrier that some never reach"
        except BaseException:
            for thread in threads:
                thread.abort = True
                thread.turn.release()
            raise
        self.idle.extend(threads)


@contextlib.contextmanager
def in_turns(seed):
    """Have every block that is launched run its threads in turns, in orders drawn from ``seed``."""
    with (
        mock.patch.object(kernel, "BlockManager", _Block),
        mock.patch.object(_Block, "draw", random.Random(seed)),
    ):
        yield

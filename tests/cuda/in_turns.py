"""Simulated threads that run one at a time, from barrier to barrier, in an order drawn anew each time.

Left to themselves, the threads of the simulator interleave much the same way every time, and a missing
barrier may stay unseen. Here a thread that needs what another writes in the same stretch gets it or not by
chance. A card stops, or worse, where some threads wait at a barrier that others never reach: an error here.
"""

from __future__ import annotations

import contextlib
import random
import threading
from unittest import mock

import numpy as np
from numba.cuda.simulator import kernel


class _Thread(kernel.BlockThread):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.turn = threading.Semaphore(0)
        self.turn_over = threading.Semaphore(0)
        self.ended = False

    def run(self):
        self.turn.acquire()
        super().run()
        self.ended = True
        self.turn_over.release()

    def take_turn(self):
        """Let the thread run to its next barrier, or its end."""
        self.turn.release()
        self.turn_over.acquire()
        if self.exception:
            error, trace = self.exception
            raise error.with_traceback(trace)

    def syncthreads(self):
        self.turn_over.release()
        self.turn.acquire()
        if self.abort:
            raise RuntimeError("another thread failed")


class _Block(kernel.BlockManager):
    draw = random.Random(0)

    def run(self, grid_point, *arguments):
        threads = [
            _Thread(lambda: self._f(*arguments), self, grid_point, point, self._debug)
            for point in np.ndindex(*self._block_dim)
        ]
        for thread in threads:
            thread.start()
        try:
            while not all(thread.ended for thread in threads):
                for thread in self.draw.sample(threads, len(threads)):
                    thread.take_turn()
                assert len({thread.ended for thread in threads}) == 1, "a barrier that some never reach"
        finally:
            for thread in threads:
                thread.abort = True
                thread.turn.release()


@contextlib.contextmanager
def in_turns(seed):
    """Have every block that is launched run its threads in turns, in orders drawn from ``seed``."""
    with (
        mock.patch.object(kernel, "BlockManager", _Block),
        mock.patch.object(_Block, "draw", random.Random(seed)),
    ):
        yield

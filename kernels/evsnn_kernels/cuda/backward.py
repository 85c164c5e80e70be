"""Errors, passed back through active neurons only (docs/model.md, S7 to S9)."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import cuda, float32, float64, int32, uint32

from evsnn_kernels.cuda.block import MAX_THREADS, bits_below, summed
from evsnn_kernels.jit import cuda_kernel, larger
from evsnn_kernels.layout import F32, F64, LOSS_CROSS_ENTROPY, U16, Scalar
from evsnn_kernels.spec.learning import effective_activity, lateral_inverse, output_logit, portable_exp

#: Neurons whose values a block holds at once.
TILE: Final = 512
#: Inputs and neurons of the part of a weight matrix that a block holds at once.
TILE_INPUTS: Final = 64
TILE_NEURONS: Final = 32
#: Inputs of which a block lists the active ones at once, and the words of 32 bits that mark them.
LIST: Final = 1024
LIST_WORDS: Final = 32
#: One column more: threads that read the same column of different rows use different banks of memory.
TILE_PITCH: Final = TILE_NEURONS + 1


@cuda_kernel(threads=32)
def output_error(
    labels: U16,
    counts: F32,
    potential: F32,
    kind: Scalar,
    normalise: Scalar,
    out_error: F32,
    out_loss: F64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Derivative of the loss by the output activity (S9); a block a sample.

    See :func:`evsnn_kernels.cpu.backward.output_error`.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n_out = counts.shape[1]
    power = cuda.shared.array(TILE, float64)
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        label = np.int64(labels[s])
        if kind == LOSS_CROSS_ENTROPY:
            # Every thread finds the maximum and the sum for itself: both need one order.
            top = -np.inf
            for i in range(n_out):
                top = larger(top, output_logit(counts[s, i], potential[s, i]))
            total = 0.0
            for begin in range(0, n_out, TILE):
                size = min(TILE, n_out - begin)
                for t in range(thread, size, threads):
                    logit = output_logit(counts[s, begin + t], potential[s, begin + t])
                    power[t] = portable_exp(logit - top)
                cuda.syncthreads()
                for t in range(size):
                    total += power[t]
                cuda.syncthreads()
            for i in range(thread, n_out, threads):
                target = 1.0 if i == label else 0.0
                share = portable_exp(output_logit(counts[s, i], potential[s, i]) - top) / total
                out_error[s, i] = np.float32(share - target)
            if thread == 0:
                out_loss[s] = portable_exp(output_logit(counts[s, label], potential[s, label]) - top) / total
        else:
            largest = np.float32(1.0)
            for i in range(n_out):
                largest = larger(largest, counts[s, i])
            for i in range(thread, n_out, threads):
                target32 = np.float32(1.0) if i == label else np.float32(0.0)
                error = counts[s, i] / largest - target32
                out_error[s, i] = error if normalise != 0 else error / largest
            if thread == 0:
                loss = 0.0
                for i in range(n_out):
                    target32 = np.float32(1.0) if i == label else np.float32(0.0)
                    error = counts[s, i] / largest - target32
                    loss += 0.5 * np.float64(error) * np.float64(error)
                out_loss[s] = loss


@cuda_kernel(threads=256)
def layer_delta(
    activity: F32,
    threshold: F32,
    coupling: Scalar,
    normalise: Scalar,
    is_output: Scalar,
    spike_cost: Scalar,
    error: F32,
    out_delta: F32,
    out_threshold_delta: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Error of each neuron's input sum from the error of its activity (S7, S8); a block a sample.

    See :func:`evsnn_kernels.cpu.backward.layer_delta`. All threads fetch the values of a tile, then one
    thread a WTA group adds them in the order of its members. Of the squared gains of the active neurons,
    those of one member are equal: their number and one value are all that the sum needs.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    members = threshold.shape[0]
    groups = activity.shape[1] // members
    term = cuda.shared.array(TILE, float32)
    own = cuda.shared.array(TILE, float32)
    error_sum = cuda.shared.array(TILE, float32)
    activity_sum = cuda.shared.array(TILE, float32)
    n_active = cuda.shared.array(TILE, int32)
    scale_of_sample = cuda.shared.array(1, float32)
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        if thread == 0:
            scale_of_sample[0] = np.float32(1.0)
        if normalise != 0:
            active = np.int64(0)
            square = np.float32(0.0)
            for begin in range(0, members, TILE):
                size = min(TILE, members - begin)
                for t in range(thread, size, threads):
                    gain = np.float32(1.0) / threshold[begin + t]
                    term[t] = gain * gain
                    n_active[t] = np.int32(0)
                cuda.syncthreads()
                k = np.uint32(thread)
                while k < np.uint32(size * groups):
                    if is_output != 0 or activity[s, np.uint32(begin * groups) + k] > np.float32(0.0):
                        cuda.atomic.add(n_active, k // np.uint32(groups), np.int32(1))
                    k = np.uint32(k + np.uint32(threads))
                cuda.syncthreads()
                if thread == 0:
                    i = np.uint32(0)
                    while i < np.uint32(size):
                        again = n_active[i]
                        active += again
                        if groups == 1:
                            # Adding 0 changes nothing; without a branch, many terms are fetched at once.
                            square += term[i] if again > 0 else np.float32(0.0)
                            again = np.int32(0)
                        while again > 0:
                            square += term[i]
                            again = np.int32(again - 1)
                        i = np.uint32(i + 1)
                cuda.syncthreads()
            if thread == 0 and active > 0:
                scale_of_sample[0] = np.float32(math.sqrt(square / np.float32(active)))
        cuda.syncthreads()
        scale = scale_of_sample[0]

        width = min(groups, threads, TILE)
        height = TILE // width
        for first_group in range(0, groups, width):
            wide = min(width, groups - first_group)
            active = np.int64(0)
            total_error = np.float32(0.0)
            total_activity = np.float32(0.0)
            for first_member in range(0, members, height):
                size = min(height, members - first_member) * wide
                for t in range(thread, size, threads):
                    i = t // wide
                    k = (first_member + i) * groups + first_group + t - i * wide
                    own[t] = activity[s, k]
                    if is_output != 0 or activity[s, k] > np.float32(0.0):
                        term[t] = error[s, k] + spike_cost
                cuda.syncthreads()
                if thread < wide:
                    at = np.uint32(thread)
                    while at < np.uint32(size):
                        if is_output != 0 or own[at] > np.float32(0.0):
                            active += 1
                            total_error += term[at]
                            total_activity += own[at]
                        at = np.uint32(at + np.uint32(wide))
                cuda.syncthreads()
            if thread < wide:
                n_active[thread] = active
                error_sum[thread] = total_error
                activity_sum[thread] = total_activity
            cuda.syncthreads()
            for t in range(thread, members * wide, threads):
                i = t // wide
                g = t - i * wide
                k = i * groups + first_group + g
                delta = np.float32(0.0)
                effective = np.float32(0.0)
                if is_output != 0 or activity[s, k] > np.float32(0.0):
                    value = error[s, k] + spike_cost
                    shared = lateral_inverse(value, error_sum[g], coupling, np.int64(n_active[g]))
                    delta = shared / (threshold[i] * scale)
                    effective = effective_activity(activity[s, k], activity_sum[g], coupling)
                out_delta[s, k] = delta
                out_threshold_delta[s, k] = delta * effective
            cuda.syncthreads()


@cuda_kernel(threads=256)
def propagate(
    activity: F32, weight: F32, normalise: Scalar, delta: F32, out_error: F32, first: Scalar, last: Scalar
) -> None:
    """Error of the active inputs of a dense layer (S8); a block a sample.

    See :func:`evsnn_kernels.cpu.backward.propagate`. The block lists some active inputs; all threads fetch
    the products of a tile of their weights, row after row, then one thread an input adds them in the order
    of the neurons. A product with an error of 0 is left out of a sum on the CPU; here 0 takes its place,
    which changes no sum.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n_in, n_out = weight.shape
    partial = cuda.shared.array(MAX_THREADS, int32)
    marks = cuda.shared.array(LIST_WORDS, uint32)
    listed = cuda.shared.array(LIST, uint32)
    product = cuda.shared.array((TILE_INPUTS, TILE_PITCH), float32)
    total = cuda.shared.array(TILE_INPUTS, float32)
    # Threads lie in groups of a thread a neuron; those beyond the last whole group fetch nothing.
    wide = np.uint32(min(threads, TILE_NEURONS))
    group = np.uint32(np.uint32(thread) // wide)
    groups = np.uint32(np.uint32(threads) // wide)
    lane = np.uint32(np.uint32(thread) - group * wide)
    if group >= groups:
        lane = np.uint32(TILE_NEURONS)
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        scale = np.float32(1.0)
        if normalise != 0:
            mine = np.int32(0)
            for k in range(thread, n_in, threads):
                if activity[s, k] > np.float32(0.0):
                    mine += np.int32(1)
            partial[thread] = mine
            cuda.syncthreads()
            active = summed(partial, threads)
            if active > 0:
                scale = np.float32(math.sqrt(np.float32(n_in) / np.float32(active)))
        for low in range(0, n_in, LIST):
            size = min(LIST, n_in - low)
            for w in range(thread, LIST_WORDS, threads):
                marks[w] = np.uint32(0)
            cuda.syncthreads()
            for k in range(thread, size, threads):
                out_error[s, low + k] = np.float32(0.0)
                if activity[s, low + k] > np.float32(0.0):
                    cuda.atomic.or_(marks, k >> 5, np.uint32(1 << (k & 31)))
            cuda.syncthreads()
            for k in range(thread, size, threads):
                if (marks[k >> 5] >> np.uint32(k & 31)) & 1:
                    listed[bits_below(marks, k)] = np.uint32(low + k)
            n_listed = bits_below(marks, LIST)
            cuda.syncthreads()
            for begin in range(0, n_listed, TILE_INPUTS):
                rows = np.uint32(min(TILE_INPUTS, n_listed - begin))
                for r in range(thread, rows, threads):
                    total[r] = np.float32(0.0)
                for first_column in range(0, n_out, TILE_NEURONS):
                    columns = np.uint32(min(TILE_NEURONS, n_out - first_column))
                    column = lane
                    while column < columns:
                        at = np.uint32(np.uint32(first_column) + column)
                        change = delta[s, at]
                        row = group
                        if change != np.float32(0.0):
                            # Four loads at once: none would pass a store to shared memory.
                            while row + 3 * groups < rows:
                                row_2 = np.uint32(row + groups)
                                row_3 = np.uint32(row_2 + groups)
                                row_4 = np.uint32(row_3 + groups)
                                w = weight[listed[np.uint32(begin) + row], at]
                                w_2 = weight[listed[np.uint32(begin) + row_2], at]
                                w_3 = weight[listed[np.uint32(begin) + row_3], at]
                                w_4 = weight[listed[np.uint32(begin) + row_4], at]
                                product[row, column] = w * change
                                product[row_2, column] = w_2 * change
                                product[row_3, column] = w_3 * change
                                product[row_4, column] = w_4 * change
                                row = np.uint32(row_4 + groups)
                            while row < rows:
                                product[row, column] = weight[listed[np.uint32(begin) + row], at] * change
                                row = np.uint32(row + groups)
                        while row < rows:
                            product[row, column] = np.float32(0.0)
                            row = np.uint32(row + groups)
                        column = np.uint32(column + wide)
                    cuda.syncthreads()
                    for r in range(thread, rows, threads):
                        so_far = total[r]
                        column = np.uint32(0)
                        while column < columns:
                            so_far += product[np.uint32(r), column]
                            column = np.uint32(column + 1)
                        total[r] = so_far
                    cuda.syncthreads()
                for r in range(thread, rows, threads):
                    out_error[s, listed[begin + r]] = total[r] * scale
            cuda.syncthreads()

"""Forward cost of each layer of a trained network, beside adding the same weights without a neuron model.

For every layer that has neurons: time, input events, synaptic operations (SOPs) and spikes a sample, SOPs a
second, and the SOPs a second of a loop that adds the same weight rows to the same membranes in the same order
and does nothing else. One thread, medians of interleaved repeats.

    python benchmarks/layer_speed.py runs/conv mnist3.h5 --json benchmarks/results/conv_speed.json
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import click
import numpy as np
from evsnn_kernels.cpu.vector import load, store
from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import LANES
from evsnn_kernels.spec.convolution import first_place, last_place, offset

from evsnn import open_events
from evsnn.backends import CpuBackend
from evsnn.checkpoint import load_model
from evsnn.datasets.encoding import pack
from evsnn.environment import describe_environment
from evsnn.events.queue import HostQueue
from evsnn.layers import Conv2d
from evsnn.layers.base import SpikingLayer


@cpu_kernel
def stream_dense(units, start, count, weight, total, first, last):
    """Add the weight row of every event."""
    width = weight.shape[1]
    rows = weight.reshape(-1)
    for s in range(first, last):
        membranes = total[s]
        for e in range(start[s], start[s] + count[s]):
            row = np.int64(units[e]) * width
            for i in range(0, width, LANES):
                store(membranes, i, load(membranes, i) + load(rows, row + i))


@cpu_kernel
def stream_conv(
    units,
    start,
    count,
    weight,
    height,
    width,
    kernel,
    stride,
    padding,
    out_height,
    out_width,
    total,
    first,
    last,
):
    """Add the weights of every event at every place it reaches."""
    padded = weight.shape[1]
    channels = weight.shape[0] // (kernel * kernel)
    rows = weight.reshape(-1)
    for s in range(first, last):
        membranes = total[s]
        for e in range(start[s], start[s] + count[s]):
            unit = np.int64(units[e])
            x = unit % width
            y = unit // width % height
            channel = unit // (width * height)
            x_first = first_place(x, kernel, padding, stride)
            x_last = last_place(x, padding, stride, out_width)
            for oy in range(
                first_place(y, kernel, padding, stride), last_place(y, padding, stride, out_height) + 1
            ):
                for ox in range(x_first, x_last + 1):
                    entry = offset(y, oy, padding, stride) * kernel + offset(x, ox, padding, stride)
                    row = (entry * channels + channel) * padded
                    base = (oy * out_width + ox) * padded
                    for m in range(0, padded, LANES):
                        store(membranes, base + m, load(membranes, base + m) + load(rows, row + m))


def stream(layer, queue, placed):
    """Seconds of adding the layer's weights without a neuron model."""
    backend = placed.backend
    total = np.zeros_like(layer.new_state(len(queue), backend).potential)
    events = queue.units, queue.start, queue.count, placed.scaled
    begin = time.perf_counter()
    if isinstance(layer, Conv2d):
        backend.run(stream_conv, len(queue), *events, *layer.geometry, *layer.out_shape[1:], total)
    else:
        backend.run(stream_dense, len(queue), *events, total)
    return time.perf_counter() - begin


def compact(queue):
    """Copy a queue out of the buffer that will be used again."""
    times, units = pack(queue)
    count = queue.count.copy()
    return HostQueue(times, units, np.cumsum(count) - count, count)


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True))
@click.option("--split", default="test", show_default=True)
@click.option("--samples", default=200, show_default=True)
@click.option("--repeats", default=11, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(model, data, split, samples, repeats, out):
    """Measure and print."""
    network = load_model(model / "model.h5" if model.is_dir() else model)
    with open_events(data) as file:
        events = file[split].load(0, samples)
    count = np.diff(events.offsets)
    queue = HostQueue(events.times, events.units, events.offsets[:-1], count)
    rows = []
    with CpuBackend(1) as backend:
        for index, layer in enumerate(network.layers):
            placed = layer.place(backend)
            operations = np.empty(len(queue), np.int64)
            forward, streamed = [], []
            for repeat in range(repeats + 1):
                state = layer.new_state(len(queue), backend)
                begin = time.perf_counter()
                result = layer.forward(queue, state, placed, operations=operations)
                seconds = time.perf_counter() - begin
                if repeat:  # the first one compiles and sizes the queue
                    forward.append(seconds)
                if isinstance(layer, SpikingLayer):
                    seconds = stream(layer, queue, placed)
                    if repeat:
                        streamed.append(seconds)
            sops = float(operations.sum())
            n = len(queue)
            row = {
                "layer": network.architecture.text.split("-")[index + 1],
                "microseconds": round(1e6 * statistics.median(forward) / n, 1),
                "input_events": round(float(queue.count.mean()), 1),
                "spikes": round(float(result.count.mean()), 1),
                "synaptic_operations": round(sops / n),
            }
            if streamed:
                row["gsops"] = round(sops / statistics.median(forward) / 1e9, 2)
                row["streaming_gsops"] = round(sops / statistics.median(streamed) / 1e9, 2)
            rows.append(row)
            queue = compact(result)
    total = sum(row["microseconds"] for row in rows)
    sops = sum(row["synaptic_operations"] for row in rows)
    result = {
        "architecture": network.architecture.text,
        "layers": rows,
        "milliseconds_per_sample": round(total / 1e3, 4),
        "synaptic_operations_per_sample": sops,
        "gsops": round(sops / total / 1e3, 2),
        "samples": samples,
        "repeats": repeats,
        "environment": describe_environment(1),
    }
    for row in rows:
        click.echo("  ".join(f"{name} {value}" for name, value in row.items()))
    click.echo(f"total {total:.0f} us a sample, {sops / 1e3:.0f}k SOPs, {result['gsops']} G SOP/s")
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The tables of a comparison, in Markdown.

python benchmarks/peers/tables.py benchmarks/results/peers.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: Accuracies whose time is shown.
LEVELS = (0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98)


def throughput_table(result, task):
    """Samples a processor second of every peer, evsnn over it, and peak memory; a column each workload."""
    measured = {name: about[task] for name, about in result["workloads"].items() if about.get(task)}
    names = list(dict.fromkeys(name for table in measured.values() for name in table))
    rows = [[task, *measured]]
    rows += [[name, *(_cell(table.get(name)) for table in measured.values())] for name in names]
    return _markdown(rows)


def _cell(row):
    if row is None:
        return ""
    if "error" in row:
        return f"failed: {row['error']}"
    ratio = row.get("evsnn_over_it_samples_per_processor_second")
    text = f"{row['samples_per_processor_second']:,.0f}"
    text += f" ({ratio:.1f})" if ratio else ""
    return f"{text}, {row['peak_memory_mb']:.0f} MiB"


def seconds_to(curve, goal):
    """Processor seconds to the first point of a curve that reaches an accuracy; None if none does."""
    return next((point["processor_seconds"] for point in curve if point["accuracy"] >= goal), None)


def accuracy_table(result, workload):
    """Accuracy of every peer at the end, and processor seconds to the levels that any reached."""
    table = result["workloads"][workload].get("accuracy", {})
    curves = [row["curve"] for row in table.values() if "curve" in row]
    levels = [level for level in LEVELS if any(seconds_to(curve, level) is not None for curve in curves)]
    rows = [[workload, "accuracy at the end", "after seconds", *(f"{level:.0%}" for level in levels)]]
    for name, row in table.items():
        if "error" in row:
            rows.append([name, f"failed: {row['error']}", "", *("" for _ in levels)])
            continue
        last = row["curve"][-1]
        reached = (seconds_to(row["curve"], level) for level in levels)
        rows.append(
            [
                name,
                f"{last['accuracy']:.2%}",
                f"{last['processor_seconds']:.1f}",
                *("" if seconds is None else f"{seconds:.1f} s" for seconds in reached),
            ]
        )
    return _markdown(rows)


def _markdown(rows):
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def tables(result):
    """All tables of a comparison."""
    parts = [throughput_table(result, task) for task in ("train", "infer")]
    parts += [
        accuracy_table(result, name) for name, about in result["workloads"].items() if about.get("accuracy")
    ]
    return "\n\n".join(part for part in parts if part.count("\n") > 1)


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text())))

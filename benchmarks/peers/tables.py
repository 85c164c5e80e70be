"""The tables of a comparison, in Markdown.

python benchmarks/peers/tables.py benchmarks/results/peers.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


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


def accuracy_table(result, workload):
    """Best accuracy of every peer, and processor seconds to reach others."""
    table = result["workloads"][workload].get("accuracy", {})
    levels = next((list(row["processor_seconds_to"]) for row in table.values() if "curve" in row), [])
    rows = [[workload, "accuracy at the end", "after seconds", *(f"{float(level):.0%}" for level in levels)]]
    for name, row in table.items():
        if "error" in row:
            rows.append([name, f"failed: {row['error']}", "", *("" for _ in levels)])
            continue
        last = row["curve"][-1]
        reached = (row["processor_seconds_to"][level] for level in levels)
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

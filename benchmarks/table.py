#!/usr/bin/env python3
"""Turns a result of run.py, or of pare_benchmarks (--benchmark_out=FILE.json), into a table in Markdown.

python3 benchmarks/table.py FILE.json
"""

import json
import math
import sys

MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3}
GROWTH = "growth_of_"


def name_of(row):
    return row["name"].replace("/manual_time", "").replace("/real_time", "").split("/min_time")[0].split("/iterations")[0]


def milliseconds(row):
    return row["real_time"] * MILLISECONDS[row["time_unit"]]


def growths(rows):
    """By work, (what grows, its size, milliseconds) of the rows that are about growth."""
    found = {}
    for row in rows:
        if row["name"].startswith(GROWTH):
            work, size = name_of(row).removeprefix(GROWTH).split("/")
            found.setdefault(work, []).append((*size.split(":"), milliseconds(row)))
    return found


def exponent(sizes, times):
    """e of the closest times = c * sizes^e, in logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(time) for time in times]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


def lines(report):
    context = report["context"]
    place = f"{context['num_cpus']} processors"
    if "device" in context:  # a GPU
        place = f"{context['device']}, CUDA driver {context['driver']}"
    yield (f"{place}, {context['date'][:10]}. `of_limit`: 1 is the machine's limit, read or copy "
           "bandwidth or multiply-add peak, measured in turn in the same process; `spread`: its 10 % to 90 % quantiles; `vs`: "
           "time of the peer over ours; `drift`: how far apart the limit was in the first and the second half of the rounds.")
    yield ""
    yield "| benchmark | ms | of limit | spread | drift | vs |"
    yield "|---|---|---|---|---|---|"
    for row in report["benchmarks"]:
        if row["name"].startswith(GROWTH):
            continue
        peers = " ".join(f"{key[3:]} {value:.2f}" for key, value in row.items() if key.startswith("vs_"))
        if "gain_of_macs" in row:
            peers = f"gain / MAC reduction {row['gain_of_macs']:.2f}"
        figures = (f"{row[key]:.2f}" if key in row else "" for key in ("of_limit", "spread", "limit_drift"))
        yield f"| `{name_of(row)}` | {milliseconds(row):.3g} | {' | '.join(figures)} | {peers} |"
    growing = growths(report["benchmarks"])
    if growing:
        yield from ("", "All threads; the exponent is of the line through the logarithms of all sizes, and between the last two:", "",
                    "| growth of | with | sizes | ms | exponent | of the last two |", "|---|---|---|---|---|---|")
    for work, points in growing.items():
        sizes, times = [int(size) for _, size, _ in points], [ms for *_, ms in points]
        yield (f"| {work.replace('_', ' ')} | {points[0][0]} | {', '.join(map(str, sizes))} | "
               f"{', '.join(f'{ms:.3g}' for ms in times)} | {exponent(sizes, times):.2f} | {exponent(sizes[-2:], times[-2:]):.2f} |")


def ratio(x):
    return f"{x:.2f}" if x >= 0.1 else f"{x:.1g}"


def lines_of_peers(report):
    place = f"on {report['device']}" if "device" in report else "threads bound to cores"
    yield (f"{report['date']}; {report['versions']}. Each takes its turn on the same data in one process, {place}: ratio of its "
           "time to ours, median and 10 % to 90 % quantiles of the rounds; above 1 ours is faster.")
    yield ""
    yield "| work | threads | ms | beside | ratio | 10 % to 90 % |"
    yield "|---|---|---|---|---|---|"
    for row in report["rows"]:
        work = row["name"] + (f" ({row['note']})" if "note" in row else "")
        rate = f" ({1000 * row['tokens'] / row['ms']:,.0f} tokens/s)" if "tokens" in row else ""
        for peer in row["peers"]:
            yield (f"| {work} | {row.get('threads', '')} | {row['ms']:.3g}{rate} | {peer['name']} | {ratio(peer['ratio'])} | "
                   f"{ratio(peer['low'])} to {ratio(peer['high'])} |")
            work = rate = ""


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print("\n".join(lines(json.load(file))))

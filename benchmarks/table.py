#!/usr/bin/env python3
"""Turns a result of run.py, or of pare_benchmarks (--benchmark_out=FILE.json), into a table in Markdown.

python3 benchmarks/table.py FILE.json
"""

import json
import sys

MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3}


def name_of(row):
    return row["name"].replace("/manual_time", "").split("/min_time")[0].split("/iterations")[0]


def lines(report):
    context = report["context"]
    yield (f"{context['num_cpus']} processors, {context['date'][:10]}. `of_limit`: 1 is the machine's limit, read or copy "
           "bandwidth or multiply-add peak, measured in turn in the same process; `spread`: its 10 % to 90 % quantiles; `vs`: "
           "time of the peer over ours; `drift`: how far apart the limit was in the first and the second half of the rounds.")
    yield ""
    yield "| benchmark | ms | of limit | spread | drift | vs |"
    yield "|---|---|---|---|---|---|"
    for row in report["benchmarks"]:
        peers = " ".join(f"{key[3:]} {value:.2f}" for key, value in row.items() if key.startswith("vs_"))
        if "gain_of_macs" in row:
            peers = f"gain / MAC reduction {row['gain_of_macs']:.2f}"
        ms = row["real_time"] * MILLISECONDS[row["time_unit"]]
        figures = (f"{row[key]:.2f}" if key in row else "" for key in ("of_limit", "spread", "limit_drift"))
        yield f"| {name_of(row)} | {ms:.3g} | {' | '.join(figures)} | {peers} |"


def into(path, machine, report):
    """Replaces what stands between the marks of the machine in a file, if it has them."""
    begin, end = f"<!-- speed of {machine} -->\n", "<!-- end of speed -->\n"
    text = path.read_text(encoding="utf8") if path.exists() else ""
    if begin not in text:
        return print("\n".join(lines(report)))
    before, rest = text.split(begin, 1)
    path.write_text(before + begin + "\n".join(lines(report)) + "\n" + end + rest.split(end, 1)[1], encoding="utf8")


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print("\n".join(lines(json.load(file))))

#!/usr/bin/env python3
"""Turns a result of pare_benchmarks (--benchmark_out=FILE.json) into a table in Markdown.

python3 benchmarks/table.py FILE.json
"""

import json
import sys


def main():
    with open(sys.argv[1]) as file:
        result = json.load(file)
    context = result["context"]
    print(f"{context['num_cpus']} processors, {context['date'][:10]}. `of_limit`: 1 is the machine's limit, read bandwidth or "
          "multiply-add peak, measured in turn in the same process; `spread`: its 10 % to 90 % quantiles; `vs`: time of the "
          "peer over ours.\n")
    print("| benchmark | ms | of limit | spread | vs |\n|---|---|---|---|---|")
    for run in result["benchmarks"]:
        name = run["name"].replace("/manual_time", "").split("/min_time")[0]
        peers = " ".join(f"{key[3:]} {value:.2f}" for key, value in run.items() if key.startswith("vs_"))
        if "gain_of_macs" in run:
            peers = f"gain / MAC reduction {run['gain_of_macs']:.2f}"
        ms = run["real_time"] * {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3}[run["time_unit"]]
        limit, spread = (f"{run[key]:.2f}" if key in run else "" for key in ("of_limit", "spread"))
        print(f"| {name} | {ms:.3g} | {limit} | {spread} | {peers} |")


main()

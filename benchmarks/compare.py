#!/usr/bin/env python3
"""Compares results of run.py, or of pare_benchmarks, row by row, on ratios to the machine's limit and not on times.

python3 benchmarks/compare.py BEFORE.json AFTER.json [BEFORE.json AFTER.json ...]

Several pairs, each measured one after the other, the order exchanged from pair to pair, tell smaller changes: a row's ratio is
then the median of those of the pairs, beside the least and the largest.

A row is slower where the ratio is below 0.95 and the change is more than chance: more than half of both spreads together, or,
with three pairs or more, of the same sign in all of them. Exit status 1 if there is one.
"""

import json
import pathlib
import statistics
import sys

import table


def rows(path):
    return {table.name_of(row): row for row in json.loads(pathlib.Path(path).read_text())["benchmarks"] if "of_limit" in row}


def verdict(pairs):
    ratios = [new["of_limit"] / old["of_limit"] for old, new in pairs]
    change = statistics.median(ratios) - 1
    if len(pairs) < 3:
        noise = statistics.median((old.get("spread", 0) + new.get("spread", 0)) / 2 / old["of_limit"] for old, new in pairs)
        beyond_chance = abs(change) > noise
    else:
        beyond_chance = min(ratios) > 1 or max(ratios) < 1
    if not beyond_chance or abs(change) <= 0.05:
        return ""
    return "slower" if change < 0 else "faster"


def main():
    paths = sys.argv[1:]
    if not paths or len(paths) % 2:
        sys.exit(__doc__)
    results = [rows(path) for path in paths]
    names = [name for name in results[1] if all(name in result for result in results)]
    slower = 0
    print("| benchmark | of limit before | after | ratio | pairs | |\n|---|---|---|---|---|---|")
    for name in names:
        pairs = [(old[name], new[name]) for old, new in zip(results[::2], results[1::2])]
        before, after = (statistics.median(row["of_limit"] for row in side) for side in zip(*pairs))
        ratios = sorted(new["of_limit"] / old["of_limit"] for old, new in pairs)
        said = verdict(pairs)
        slower += said == "slower"
        between = f"{ratios[0]:.3f} to {ratios[-1]:.3f}" if len(pairs) > 1 else ""
        print(f"| {name} | {before:.3f} | {after:.3f} | {statistics.median(ratios):.3f} | {between} | {said} |")
    for name in sorted(set().union(*results) - set(names)):
        print(f"not in all of them: {name}", file=sys.stderr)
    sys.exit(1 if slower else 0)


main()

#!/usr/bin/env python3
"""Compares two results of run.py row by row, on ratios to the machine's limit and not on times.

python3 benchmarks/compare.py BEFORE.json AFTER.json

A row is slower where its share of the limit fell by more than 5 % and by more than half of both spreads together. Exit
status 1 if there is one.
"""

import json
import pathlib
import sys

import table


def rows(path):
    return {table.name_of(row): row for row in json.loads(pathlib.Path(path).read_text())["benchmarks"] if "of_limit" in row}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    before, after = rows(sys.argv[1]), rows(sys.argv[2])
    slower = 0
    print("| benchmark | of limit before | after | ratio | |\n|---|---|---|---|---|")
    for name, new in after.items():
        if name not in before:
            continue
        old = before[name]
        change = new["of_limit"] - old["of_limit"]
        noise = max(0.05 * old["of_limit"], (old.get("spread", 0) + new.get("spread", 0)) / 2)
        verdict = "slower" if change < -noise else "faster" if change > noise else ""
        slower += verdict == "slower"
        print(f"| {name} | {old['of_limit']:.3f} | {new['of_limit']:.3f} | {new['of_limit'] / old['of_limit']:.3f} | {verdict} |")
    for name in [*(before.keys() - after.keys()), *(after.keys() - before.keys())]:
        print(f"only in one of them: {name}", file=sys.stderr)
    sys.exit(1 if slower else 0)


main()

#!/usr/bin/env python3
"""Runs pare_benchmarks with its threads bound to cores, runs rows again whose limit was not steady, and writes
results/MACHINE.json; the table of RESULTS.md is made anew from it.

python3 benchmarks/run.py PROGRAM [--filter REGEX] [--machine NAME] [--results FOLDER]

With --filter the rows that are run replace those of the same name in an earlier result of this machine.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

import table

STEADY = 0.15  # halves of a row's rounds may measure limits so far apart
TRIES = 3


def processor(key):
    """What Linux says about it."""
    try:
        found = re.search(rf"^{key}\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else ""


def machine_name():
    model = processor("model name") or platform.processor()
    model = re.sub(r"\(.*?\)|@.*|\bCPU\b|\bProcessor\b", "", model) or platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", f"{model} {os.cpu_count()} cores".lower()).strip("-")


def run(program, names):
    """The program's report on the benchmarks that the regular expression picks."""
    environment = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores", **os.environ}
    if "avx512f" in processor("flags"):  # OpenBLAS takes some for processors without it
        environment.setdefault("OPENBLAS_CORETYPE", "SKYLAKEX")
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([program, f"--benchmark_filter={names}", f"--benchmark_out={out.name}",
                        "--benchmark_out_format=json"], check=True, env=environment)
        return json.loads(pathlib.Path(out.name).read_text())


def drift(row):
    return row.get("limit_drift", 0)


def measure(program, names):
    report = run(program, names)
    rows = {row["name"]: row for row in report["benchmarks"]}
    for _ in range(TRIES - 1):
        unsteady = [name for name, row in rows.items() if drift(row) > STEADY]
        if not unsteady:
            break
        print(f"\n{len(unsteady)} rows again, whose limit was {max(drift(rows[name]) for name in unsteady):.0%} apart", flush=True)
        for row in run(program, "^(" + "|".join(re.escape(name) for name in unsteady) + ")$")["benchmarks"]:
            if drift(row) < drift(rows[row["name"]]):
                rows[row["name"]] = row
    report["benchmarks"] = list(rows.values())
    return report


def main():
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--filter", default=".", help="of names, a regular expression")
    parser.add_argument("--machine", default=machine_name())
    parser.add_argument("--results", type=pathlib.Path, default=here, help="holds results/ and RESULTS.md")
    arguments = parser.parse_args()
    path = arguments.results / "results" / f"{arguments.machine}.json"
    report = measure(arguments.program.resolve(), arguments.filter)
    report["context"].pop("executable", None)
    report["context"].pop("host_name", None)
    if arguments.filter != "." and path.exists():
        rows = {row["name"]: row for row in json.loads(path.read_text())["benchmarks"]}
        rows.update((row["name"], row) for row in report["benchmarks"])
        report["benchmarks"] = list(rows.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{path}")
    unsteady = [row["name"] for row in report["benchmarks"] if drift(row) > STEADY]
    if unsteady:
        print(f"This machine is too noisy to trust {len(unsteady)} of {len(report['benchmarks'])} rows, whose limit moved by "
              f"more than {STEADY:.0%} in {TRIES} tries: {', '.join(unsteady)}", file=sys.stderr)
    table.into(arguments.results / "RESULTS.md", arguments.machine, report)


main()

#!/usr/bin/env python3
"""Runs pare_benchmarks with its threads bound to cores, runs rows again whose limit was not steady, and writes
results/MACHINE.json; then peers/peers.py, which writes results/MACHINE.peers.json. Where there is Matplotlib the pictures, and
then RESULTS.md and the README's figures, are made anew from them, unless they are written to another FOLDER.

python3 benchmarks/run.py PROGRAM [--peers LIBRARY] [--filter REGEX] [--machine NAME] [--results FOLDER] [-- OPTIONS OF PEERS.PY]

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

import figures
from report import MODEL, python, remake

STEADY = 0.15  # halves of a row's rounds may measure limits so far apart
TRIES = 3
HERE = pathlib.Path(__file__).parent


def processor(key):
    """What Linux says about it."""
    try:
        found = re.search(rf"^{key}\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else ""


def machine_name():
    """Of its processor, the widest registers that it has where there are several kinds, and its cores."""
    model = processor("model name") or platform.processor()
    model = re.sub(r"\(.*?\)|@.*|\bCPU\b|\bProcessor\b", "", model) or platform.machine()
    flags = processor("flags").split()
    registers = "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else ""
    return re.sub(r"[^a-z0-9]+", "-", f"{model} {registers} {os.cpu_count()} cores".lower()).strip("-")


def environment():
    found = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores", **os.environ}
    if "avx512f" in processor("flags"):  # OpenBLAS takes some for processors without it
        found.setdefault("OPENBLAS_CORETYPE", "SKYLAKEX")
    return found


def run(program, names):
    """The program's report on the benchmarks that the regular expression picks."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([program, f"--benchmark_filter={names}", f"--benchmark_out={out.name}",
                        "--benchmark_out_format=json"], check=True, env=environment())
        text = pathlib.Path(out.name).read_text()
    return json.loads(text) if text else None  # none has such a name


def pattern_of(name):
    """A regular expression for it, with no more escapes than the program's library knows: Python's has one for a space."""
    return re.sub(r"[][.^$|(){}*+?\\]", r"\\\g<0>", name)


def drift(row):
    return row.get("limit_drift", 0)


def measure(program, names):
    report = run(program, names)
    if not report:
        return None
    rows = {row["name"]: row for row in report["benchmarks"]}
    for _ in range(TRIES - 1):
        unsteady = [name for name, row in rows.items() if drift(row) > STEADY]
        if not unsteady:
            break
        print(f"\n{len(unsteady)} rows again, whose limit was {max(drift(rows[name]) for name in unsteady):.0%} apart", flush=True)
        again = run(program, "^(" + "|".join(map(pattern_of, unsteady)) + ")$")
        for row in again["benchmarks"] if again else []:
            if drift(row) < drift(rows[row["name"]]):
                rows[row["name"]] = row
    report["benchmarks"] = list(rows.values())
    return report


def keep(path, report, rows, partly):
    """Writes a report, with the rows of an earlier one that a partial one lacks: by its date, new rows by theirs."""
    if partly and path.exists():
        earlier = json.loads(path.read_text())
        if earlier.get("date") != report.get("date"):
            for row in report[rows]:
                row["note"] = "; ".join([*([row["note"]] if "note" in row else []), f"on {report['date']}"])
            report["date"] = earlier["date"]
        found = {row_name(row): row for row in earlier[rows]}
        found.update((row_name(row), row) for row in report[rows])
        report[rows] = list(found.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{path}")


def row_name(row):
    return row["name"], row.get("threads")


def peers(arguments):
    """What peers.py finds, or None."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([python(), HERE / "peers/peers.py", arguments.peers.resolve(), "--out", out.name, "--filter", arguments.filter,
                        *(["--model", MODEL] if MODEL.is_dir() else []), *arguments.options],
                       check=True, env=environment())
        text = pathlib.Path(out.name).read_text()
    return json.loads(text) if text else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path, help="libpare_peers.so; without, no peers are timed")
    parser.add_argument("--filter", default=".", help="of names, a regular expression")
    parser.add_argument("--machine", default=machine_name())
    parser.add_argument("--results", type=pathlib.Path, default=figures.RESULTS)
    mine, theirs = sys.argv[1:], []
    if "--" in mine:
        mine, theirs = mine[: mine.index("--")], mine[mine.index("--") + 1 :]
    arguments = parser.parse_args(mine, argparse.Namespace(options=theirs))
    path = arguments.results / f"{arguments.machine}.json"
    partly = arguments.filter != "."
    report = measure(arguments.program.resolve(), arguments.filter)
    if report:
        report["context"].pop("executable", None)
        report["context"].pop("host_name", None)
        keep(path, report, "benchmarks", partly)
        unsteady = [row["name"] for row in report["benchmarks"] if drift(row) > STEADY]
        if unsteady:
            print(f"This machine is too noisy to trust {len(unsteady)} of {len(report['benchmarks'])} rows, whose limit moved "
                  f"by more than {STEADY:.0%} in {TRIES} tries: {', '.join(unsteady)}", file=sys.stderr)
    found = peers(arguments) if arguments.peers else None
    if found:
        keep(path.with_suffix(".peers.json"), found, "rows", partly)
    if arguments.results == figures.RESULTS:
        remake(arguments.machine)


main()

#!/usr/bin/env python3
"""Draws results as SVG, with Matplotlib.

python3 benchmarks/pictures.py [MACHINE ...]

results/MACHINE.limits.svg    each row's share of the machine's limit
results/MACHINE.roofline.svg  arithmetic per second over arithmetic per byte, and each row's own roof
results/MACHINE.growth.svg    time over size
results/MACHINE.peers.svg     time of other libraries over ours, where they were timed

and in any case

results/quality.svg           what a sentence encoder keeps of its quality, against the share of multiply-adds
results/tokens.svg            the same for tokens that leave, on four tasks
"""

import argparse
import json

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pare", "font.size": 9, "axes.spines.top": False,
                            "axes.spines.right": False, "axes.axisbelow": True})
import matplotlib.pyplot as pyplot

import figures
import table
from figures import RESULTS

OURS, THEIRS, LIMIT = "#1f6fb4", "#c2571a", "#8a8a8a"
MARKERS = "osv^DPX*<>"


def save(figure, path):
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    print(path)


def threads(count):
    return f"{count} thread" + "s" * (int(count) != 1)


def words(row):
    """A row's name in words."""
    work, *parameters = table.name_of(row).split("/")
    parameters = [part.split(":") if ":" in part else ["threads", part] for part in parameters]
    return ", ".join([work.replace("_", " "), *(threads(value) if name == "threads" else f"{name} {value}"
                                                for name, value in parameters)])


def legend(axes):
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def named_places(names, width):
    """A figure with a line for each name, the first on top, and a mark at 1; the places of the lines."""
    figure, axes = pyplot.subplots(figsize=(width, 0.19 * len(names) + 0.6))
    places = range(len(names))[::-1]
    axes.set_yticks(places, names, fontsize=7)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.axvline(1, color=LIMIT, lw=0.8)
    return figure, axes, places


def limits(rows, path):
    rows = [row for row in rows if "of_limit" in row]
    figure, axes, places = named_places([words(row) for row in rows], 7)
    axes.barh(places, [row["of_limit"] for row in rows], xerr=[row.get("spread", 0) / 2 for row in rows], color=OURS, height=0.7,
              error_kw={"ecolor": LIMIT, "lw": 0.8})
    axes.set_xlim(0, 1.5)
    axes.set_xlabel("share of the machine's limit, measured in turn with it (line: spread of the rounds)")
    save(figure, path)


def roofline(rows, path):
    rows = [row for row in rows if "flops" in row and "of_limit" in row]
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    names = {}
    for row in rows:
        names.setdefault(row["name"].split("/")[0], []).append(row)
    for number, (name, found) in enumerate(names.items()):
        color, marker = pyplot.cm.tab20(number % 20), MARKERS[number % len(MARKERS)]
        x = [row["flops"] / row["bytes"] for row in found]
        y = [row["flops"] / (1e6 * table.milliseconds(row)) for row in found]
        roofs = [speed / row["of_limit"] for speed, row in zip(y, found)]
        axes.vlines(x, y, roofs, color=color, lw=0.8)
        axes.plot(x, roofs, "_", color=color, ms=9)
        axes.plot(x, y, marker, color=color, ms=5, label=name.replace("_", " "))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(lw=0.3)
    axes.set_xlabel("arithmetic operations per byte that must be moved")
    axes.set_ylabel("Gflop/s (bar above: the limit)")
    legend(axes)
    save(figure, path)


def growth(rows, path):
    works = table.growths(rows)
    if not works:
        return
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for work, points in works.items():
        sizes, times = [int(size) for _, size, _ in points], [ms for *_, ms in points]
        axes.plot(sizes, times, "o-", ms=4, label=f"{work.replace('_', ' ')}, by {points[0][0]}: exponent {table.exponent(sizes, times):.2f}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(lw=0.3)
    axes.set_xlabel("size")
    axes.set_ylabel("ms")
    legend(axes)
    save(figure, path)


def peers(rows, path):
    points = [(f"{row['name']}{', ' + threads(row['threads']) if 'threads' in row else ''}: {peer['name']}", peer)
              for row in rows for peer in row["peers"]]
    if not points:
        return
    figure, axes, places = named_places([name for name, _ in points], 6)
    for place, (_, peer) in zip(places, points):
        axes.hlines(place, peer["low"], peer["high"], color=LIMIT, lw=1)
        axes.plot(peer["ratio"], place, "o", ms=4, color=OURS if peer["ratio"] >= 1 else THEIRS)
    axes.set_xscale("log")
    ticks = [0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", lw=0.3)
    axes.set_xlabel("their time over ours, 10 % to 90 % of the rounds")
    save(figure, path)


def quality():
    figure, axes = pyplot.subplots(figsize=(6.5, 4))
    for number, row in enumerate(figures.rows("quality/sentences")):
        (_, name), *found = row.items()
        shares = [float(share) for share, _ in found]
        means, deviations = zip(*(map(float, cell.split(" ± ")) for _, cell in found))
        axes.errorbar(shares, means, deviations, fmt=MARKERS[number % len(MARKERS)] + "-", ms=4, lw=1, capsize=2, label=name)
    axes.invert_xaxis()
    axes.grid(lw=0.3)
    axes.set_xlabel("share of multiply-adds kept")
    axes.set_ylabel("Spearman x 100, all-MiniLM-L6-v2 on the STS benchmark")
    legend(axes)
    save(figure, RESULTS / "quality.svg")


def tokens():
    tasks = {}
    for row in figures.rows("tokens/tasks"):
        if row["tokens kept by"] == "the same, alpha 0":  # none is gone
            continue
        method = "learned thresholds" if row["tokens kept by"].startswith("the same") else row["tokens kept by"]
        tasks.setdefault(row["task"], {}).setdefault(method, []).append((float(row["share of MACs"]), float(row["metric"])))
    figure, all_axes = pyplot.subplots(1, len(tasks), figsize=(2.6 * len(tasks), 3))
    markers = dict(zip(("learned thresholds", "calibrated", "hand-set", "top-k", "schedule"), MARKERS))
    for axes, (task, methods) in zip(all_axes, tasks.items()):
        dense = methods.pop("dense")[0][1]
        axes.axhline(dense, color=LIMIT, lw=0.8, ls=":")
        for method, points in methods.items():
            axes.plot(*zip(*sorted(points)), markers[method], ms=5, color=OURS if method == "learned thresholds" else THEIRS,
                      mfc=None if method == "learned thresholds" else "none", label=method)
        axes.set_title(f"{task} (dense {dense:.1f})", fontsize=9)
        axes.set_xlim(1, 0)
        axes.grid(lw=0.3)
        axes.set_xlabel("share of multiply-adds")
    all_axes[0].set_ylabel("accuracy, or Spearman, x 100")
    legend(all_axes[-1])
    figure.tight_layout()
    save(figure, RESULTS / "tokens.svg")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machines", metavar="MACHINE", nargs="*")
    for machine in parser.parse_args().machines:
        path = RESULTS / f"{machine}.json"
        if path.exists():
            for draw in (limits, roofline, growth):
                draw(json.loads(path.read_text())["benchmarks"], RESULTS / f"{machine}.{draw.__name__}.svg")
        beside = RESULTS / f"{machine}.peers.json"
        if beside.exists():
            peers(json.loads(beside.read_text())["rows"], RESULTS / f"{machine}.peers.svg")
    quality()
    tokens()


main()

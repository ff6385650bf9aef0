"""Figures of results/, for the pictures and for the templates of RESULTS.md and README.md.

A file results/FOLDER/NAME.txt is a run: the commands behind "$ ", remarks behind "# " where it is not just what they print,
an empty line, and what they printed. Numbers are decimal ones, so a difference has the digits of what was printed.
"""

import fnmatch
import itertools
import json
import pathlib
import re
from decimal import Decimal

import table

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
MACHINE = "amd-epyc-avx512-2-cores"  # the one that the prose is about
AVX2, SSE2 = "amd-epyc-avx2-2-cores", "amd-epyc-sse2-2-cores"  # one processor, by what the kernels were built for
INTEL = "intel-xeon-avx512-2-cores"
PICTURES = {"limits": "Each row's share of the machine's limit",
            "roofline": "Arithmetic per second over arithmetic per byte, with each row's own roof",
            "growth": "Time over size",
            "peers": "Time of other libraries over ours"}

MORE = "more than with all keys, %"  # a column of what evict_cache prints


def file(run):
    return RESULTS / f"{run}.txt"


def halves(run):
    """The lines above a run's output, and the output."""
    head, _, output = file(run).read_text(encoding="utf8").partition("\n\n")
    return head.split("\n"), output.rstrip("\n")


def behind(sign, run):
    return [line.removeprefix(sign) for line in halves(run)[0] if line.startswith(sign)]


def commands(run):
    return "\n".join(f"    {command}" for command in behind("$ ", run))


def remarks(run):
    return "\n".join(f"*{remark}*" for remark in behind("# ", run))


def printed(run):
    output = halves(run)[1]
    return output if "\n|" in output else f"```\n{output}\n```"  # tables are Markdown as they are


def all_of(run):
    return "\n\n".join(filter(None, (commands(run), remarks(run), printed(run))))


def tables(run):
    lines = itertools.groupby(halves(run)[1].split("\n"), lambda line: line.startswith("|"))
    return ["\n".join(found) for in_table, found in lines if in_table]


def rows(run, start="", number=0):
    """Those rows of a run's table that start so, from column to cell."""
    columns, _, *found = ([text.strip() for text in line.strip("|").split("|")] for line in tables(run)[number].split("\n"))
    found = [dict(zip(columns, texts)) for texts in found if " | ".join(texts).startswith(start)]
    if not found:
        raise LookupError(f"no row of {file(run)} starts with '{start}'")
    return found


def cell(run, start, column, number=0):
    """Of the first row that starts so."""
    return rows(run, start, number)[0][str(column)]


def cells(run, start, *columns):
    return " | ".join(cell(run, start, column) for column in columns)


def cache_costs(run, *rules):
    """What evict_cache has printed of these rules, a row for each share."""
    shares = [row["share"] for row in rows(run, rules[0] + " | ")]
    lines = [["share of the keys", *rules], ["---"] * (len(rules) + 1)]
    lines += [[share, *(cell(run, f"{rule} | {share} | ", MORE) for rule in rules)] for share in shares]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def value(run, start, column, number=0):
    return Decimal(cell(run, start, column, number).split(" ± ")[0])


def figure(run, label, number=0):
    """What stands behind a label in what a run printed: the first number of that line, or a later one."""
    found = re.search(rf"{re.escape(label)}\b(.*)", halves(run)[1])
    if not found:
        raise LookupError(f"{file(run)} does not say '{label}'")
    return Decimal(re.findall(r"-?\d+(?:\.\d+)?", found[1])[number])


def rise(run):
    """Of perplexity by pruning, as prune_decoder prints it, in percent."""
    return f"{figure(run, 'perplexity', 2)} ± {figure(run, 'perplexity', 3)}"


def lost(run, start, column):
    """By the method of that row, against the dense model."""
    return figure(run, "dense") - value(run, start, column)


def loss(run, start, column):
    """The same with the spread of the pruned model's figure, where it has one."""
    spread = cell(run, start, column).partition(" ± ")[2]
    return f"{lost(run, start, column)} ± {spread}" if spread else str(lost(run, start, column))


def losses(run, start, *columns):
    *first, last = (str(lost(run, start, column)) for column in columns)
    return f"{', '.join(first)} and {last}"


def span(values, digits):
    """The lowest and the highest, once if they read the same."""
    if not values:
        raise LookupError("no row has that name")
    return " to ".join(dict.fromkeys(f"{end:.{digits}f}" for end in (min(values), max(values))))


def speed(name, key="of_limit", digits=2, machine=MACHINE):
    """Of the machine's rows with a name like `fisher_diagonal*/1`."""
    found = json.loads((RESULTS / f"{machine}.json").read_text())["benchmarks"]
    found = [{**row, "ms": table.milliseconds(row)} for row in found if fnmatch.fnmatchcase(table.name_of(row), name)]
    return span([row[key] for row in found if key in row], digits)


def beside(work, peer="*", threads=2, digits=1, machine=MACHINE):
    """Its time over ours, of works and peers with names like those."""
    found = json.loads((RESULTS / f"{machine}.peers.json").read_text())["rows"]
    return span([other["ratio"] for row in found if row.get("threads") == threads and fnmatch.fnmatchcase(row["name"], work)
                 for other in row["peers"] if fnmatch.fnmatchcase(other["name"], peer)], digits)


def drawn(machine, *pictures):
    """Those that were drawn, which takes Matplotlib."""
    names = {f"{machine}.{picture}.svg": PICTURES[picture] for picture in pictures}
    return "\n".join(f"![{words}](results/{name})" for name, words in names.items() if (RESULTS / name).exists())


def machines():
    """Tables and pictures of every machine that has results."""
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        report, machine = json.loads(path.read_text()), path.stem.removesuffix(".peers")
        if machine == path.stem:
            found += [f"### {machine}", "\n".join(table.lines(report)), drawn(machine, "limits", "roofline", "growth")]
        else:
            found += [f"### {machine} beside other libraries", "\n".join(table.lines_of_peers(report)), drawn(machine, "peers")]
    return "\n\n".join(filter(None, found))

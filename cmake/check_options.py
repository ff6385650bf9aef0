#!/usr/bin/env python3
"""check_options.py README PROGRAM...: the README has a table of each program's options, in the order and the words of --help.

A row is | `--option` | default | what --help says |, the default being "required", "off" of a switch, or "none". The table
of a program is the first behind a heading with its name.
"""

import pathlib
import re
import subprocess
import sys

readme, *programs = map(pathlib.Path, sys.argv[1:])
text = readme.read_text(encoding="utf8")
wrong = []


def described(program):
    """{option: what --help says behind its name}, in one line, with "TYPE" for a type and the values that it allows."""
    says = subprocess.run([program, "--help"], check=True, capture_output=True, encoding="utf8").stdout
    options = re.split(r"^ {1,12}(?:-\w, *)?--(?=[a-z])", says, flags=re.MULTILINE)[1:]  # descriptions begin further right
    words = [" ".join(option.split()) for option in options]
    found = [re.match(r"([a-z-]+) ?((?:[A-Z]+\b(?::\S+?[}\]])?(?:,\.\.\.)?)?)(.*)", option) for option in words]
    return {f"--{name}": "TYPE" * bool(type) + rest for name, type, rest in map(re.Match.groups, found) if name != "help"}


def as_help(default, words):
    """How versions of CLI11 print a default and a description."""
    if default == "off":
        return [words]
    if default == "required":
        return [f"TYPE REQUIRED {words}"]
    shown = [f"={default}", f" [{default}]"] + [""] * (default == "none")
    return [f"TYPE{value}{more} {words}" for value in shown for more in ("", " ...")]


for program in programs:
    heading = re.search(rf"^#+ .*{program.stem}.*$", text, flags=re.MULTILINE)
    if not heading:
        sys.exit(f"{readme.name} has no heading with {program.stem}")
    table = re.search(r"(?:^\|.*\n)+", text[heading.end() :], flags=re.MULTILINE)
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.*?) \| (.*) \|$", table[0] if table else "", flags=re.MULTILINE)
    options = described(program)
    listed = [name for name, *_ in rows]
    if listed != list(options):
        lacks, more = options.keys() - listed, set(listed) - options.keys()
        wrong.append(f"{program.stem}: the table lacks {lacks or 'none'}, has {more or 'none'} besides, or has another order")
        continue
    for name, default, words in rows:
        if options[name] not in as_help(default, words):
            wrong.append(f"{program.stem} --help: {name} {options[name]}\n  the table: {name}, default {default}: {words}")
if wrong:
    sys.exit(f"{readme.name} says something else than programs do:\n" + "\n".join(wrong))

#!/usr/bin/env python3
"""Makes RESULTS.md and the marked blocks of README.md from templates and results/. No figure in them is typed.

python3 benchmarks/report.py                  makes them anew
python3 benchmarks/report.py --check          ends with status 1 where they say something else, and says where
python3 benchmarks/report.py --run RUN ... [--model DIR] [--data DIR] [--programs DIR]

runs the commands at the top of results/RUN.txt again (RUN is like quality/sentences), replaces what they printed, and makes
pictures and documents anew. For a new run, write its commands into such a file, each behind "$ ".

RESULTS.in.md is the template of RESULTS.md, README.in.md that of the blocks of README.md. In both, {{ EXPRESSION }} or
{{ EXPRESSION:FORMAT }} stands for what an expression over the functions of figures.py gives.

MODEL (the environment's PARE_MODEL_DIR, or what cmake/fetch_data.py fetches) is all-MiniLM-L6-v2, MPNET what `fetch_data.py
mpnet` fetches; DATA holds stsb, sst2 and mrpc (train.tsv and dev.tsv) and bbc (train.tsv); PROGRAMS is build/bench/bin.
What a run writes besides is in build/results.
"""

import argparse
import itertools
import os
import pathlib
import re
import subprocess
import sys

import figures

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pare"
MODEL = pathlib.Path(os.environ.get("PARE_MODEL_DIR") or CACHE / "model")
BLOCK = re.compile(r"(<!-- made by benchmarks/report\.py: .+? -->\n)(.*?)(?=<!-- end -->\n)", re.DOTALL)


def fill(template):
    """What a template says."""
    text = template.read_text(encoding="utf8")

    def value(found):
        try:
            return eval(f'f"""{{{found[1].strip()}}}"""', vars(figures))
        except Exception as error:
            line = text.count("\n", 0, found.start()) + 1
            sys.exit(f"{template.relative_to(TOP)}:{line}: {found[0]}: {error}")

    return re.sub(r"\{\{(.+?)\}\}", value, text)


def documents():
    """Each document, its template, and what it should say."""
    results, blocks, readme = HERE / "RESULTS.in.md", HERE / "README.in.md", TOP / "README.md"
    yield HERE / "RESULTS.md", results, fill(results)
    text, wanted = readme.read_text(encoding="utf8"), dict(BLOCK.findall(fill(blocks)))
    for mark in wanted.keys() ^ dict(BLOCK.findall(text)).keys():
        sys.exit(f"{mark.strip()} ... <!-- end --> must stand in README.md and in {blocks.relative_to(TOP)}")
    yield readme, blocks, BLOCK.sub(lambda block: block[1] + wanted[block[1]], text)


def write():
    for path, _, text in documents():
        path.write_text(text, encoding="utf8")


def check():
    """Ends with a sentence on the first line of each document that says something else."""
    found = []
    for path, template, text in documents():
        lines = itertools.zip_longest(path.read_text(encoding="utf8").splitlines(True), text.splitlines(True), fillvalue="")
        for number, (said, meant) in enumerate(lines, 1):
            if said != meant:
                start = max(0, len(os.path.commonprefix((said, meant))) - 30)
                found.append(f"{path.relative_to(TOP)}:{number} says {said[start:start + 60]!r} where benchmarks/results gives "
                             f"{meant[start:start + 60]!r}: run python3 benchmarks/report.py; what it should say is for "
                             f"{template.relative_to(TOP)} to change.")
                break
    sys.exit("\n".join(found) or 0)


def python():
    """The one whose packages setup.sh --peers has put there, or this one."""
    found = CACHE / "peers/bin/python"
    return found if found.exists() else sys.executable


def remake(*machines):
    """The pictures, where there is Matplotlib, and the documents."""
    if subprocess.run([python(), "-c", "import matplotlib"], stderr=subprocess.DEVNULL).returncode == 0:
        subprocess.run([python(), HERE / "pictures.py", *machines], check=True)
    write()


def run(name, environment):
    """Its commands again; a run that fails leaves the file as it was."""
    commands = figures.behind("$ ", name)
    if not commands:
        sys.exit(f"{figures.file(name)} is left as it was: it has no commands")
    print("\n".join(commands), flush=True)
    done = subprocess.run(["sh", "-euc", "\n".join(commands)], cwd=TOP, env=environment, stdout=subprocess.PIPE, encoding="utf8")
    if done.returncode:
        sys.exit(f"{figures.file(name)} is left as it was: its commands ended with {done.returncode}")
    head = "".join(f"$ {command}\n" for command in commands)
    figures.file(name).write_text(f"{head}\n{done.stdout.lstrip()}", encoding="utf8")
    print(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--run", nargs="+", default=[])
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--programs", type=pathlib.Path, default=TOP / "build/bench/bin")
    arguments = parser.parse_args()
    if arguments.check:
        check()
    if not arguments.run:
        return write()
    work = pathlib.Path("build/results")  # a relative name, for what programs print
    (TOP / work).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "MODEL": str(arguments.model.resolve()), "MPNET": str(CACHE / "mpnet"),
                   "LEE": str(CACHE / "lee"), "WORK": str(work),
                   "PATH": f"{arguments.programs.resolve()}{os.pathsep}{os.environ['PATH']}"}
    if arguments.data:
        environment["DATA"] = str(arguments.data.resolve())
    for name in arguments.run:
        run(name, environment)
    remake()


if __name__ == "__main__":
    main()

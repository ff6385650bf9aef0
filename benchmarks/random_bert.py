#!/usr/bin/env python3
"""Writes an encoder with random weights as Hugging Face stores it, and text for it, to time programs on: FOLDER/config.json,
vocab.txt, model.safetensors, and texts.txt, a document a line. Needs NumPy.

python3 benchmarks/random_bert.py FOLDER [--layers 12] [--hidden 768] [--heads 12] [--filters 3072] [--words 30522]
    [--documents 2048] [--tokens 128]
"""

import argparse
import json
import pathlib

import numpy


def tensors(a):
    """(name, shape, how its numbers spread around what)"""
    def dense(name, outputs, inputs):
        yield f"{name}.weight", (outputs, inputs), 0, inputs ** -0.5
        yield f"{name}.bias", (outputs,), 0, 0.02

    def norm(name):
        yield f"{name}.weight", (a.hidden,), 1, 0.1
        yield f"{name}.bias", (a.hidden,), 0, 0.1

    for table, rows in (("word", a.words), ("position", 512), ("token_type", 2)):
        yield f"embeddings.{table}_embeddings.weight", (rows, a.hidden), 0, 1
    yield from norm("embeddings.LayerNorm")
    for l in range(a.layers):
        layer = f"encoder.layer.{l}"
        for part in ("query", "key", "value"):
            yield from dense(f"{layer}.attention.self.{part}", a.hidden, a.hidden)
        yield from dense(f"{layer}.attention.output.dense", a.hidden, a.hidden)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from dense(f"{layer}.intermediate.dense", a.filters, a.hidden)
        yield from dense(f"{layer}.output.dense", a.hidden, a.filters)
        yield from norm(f"{layer}.output.LayerNorm")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    for name, default in (("layers", 12), ("hidden", 768), ("heads", 12), ("filters", 3072), ("words", 30522),
                          ("documents", 2048), ("tokens", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{i}" for i in range(a.words - len(words))]
    (a.folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    (a.folder / "config.json").write_text(json.dumps({
        "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": a.hidden, "intermediate_size": a.filters,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": a.heads,
        "num_hidden_layers": a.layers, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": a.words}, indent=1) + "\n")
    header, size = {}, 0
    for name, shape, *_ in tensors(a):
        end = size + 4 * int(numpy.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [size, end]}
        size = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(a.folder / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _, shape, around, spread in tensors(a):
            numbers = around + spread * random.standard_normal(shape, dtype=numpy.float32)
            out.write(numbers.astype("<f4").tobytes())
    lines = (" ".join(words[i] for i in random.integers(5, a.words, a.tokens - 2)) for _ in range(a.documents))
    (a.folder / "texts.txt").write_text("".join(f"{line}\n" for line in lines))


main()

#!/usr/bin/env python3
"""check_onnx.py FOLDER: each NAME.onnx there is well formed, and ONNX Runtime finds in it what NAME.json expects, within
1e-4, whatever the padding; made one of fp16, it still gives numbers, and about these. Without ONNX and ONNX Runtime: exit status 77.

NAME.json: "texts", lists of ids; "types", the same, or null; "outputs", a list of numbers a text, or a token of the texts.
"""

import json
import pathlib
import sys

try:
    import numpy
    import onnx
    import onnxruntime
    from onnx.reference import ReferenceEvaluator
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

TOLERANCE = 1e-4
TOLERANCE_HALF = 2e-2  # of the largest output


def padded(rows, length, before, filler):
    found = numpy.full((len(rows), length), filler, dtype=numpy.int64)
    for to, row in zip(found, rows):
        first = length - len(row) if before else 0
        to[first : first + len(row)] = row
    return found


def halved(model):
    """All floats as fp16, as converters do it that clip nothing."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype(numpy.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
    for output in graph.output:
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


files = sorted(pathlib.Path(sys.argv[1]).glob("*.onnx"))
worst = worst_half = 0.0
for path in files:
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    case = json.loads(path.with_suffix(".json").read_text())
    texts = case["texts"]
    expected = numpy.array(case["outputs"])
    longest = max(map(len, texts))
    alone = [(i, i + 1, len(texts[i]), False, 0) for i in range(len(texts))]
    # What stands in the padding does not matter.
    for first, end, length, before, filler in [(0, len(texts), longest, False, 0), (0, len(texts), longest + 3, False, 7),
                                               (0, len(texts), longest + 3, True, 1), *alone]:
        chosen = texts[first:end]
        inputs = {"input_ids": padded(chosen, length, before, filler),
                  "attention_mask": padded([[1] * len(ids) for ids in chosen], length, before, 0)}
        if case["types"]:
            inputs["token_type_ids"] = padded(case["types"][first:end], length, before, filler % 2)
        found = session.run(None, inputs)
        found = found[0] if len(found) == 1 else numpy.stack(found, -1)
        rows = expected[first:end]
        if found.ndim == 3:  # rows of tokens, of which padding has none
            found = found[inputs["attention_mask"] == 1]
            before_them = sum(map(len, texts[:first]))
            rows = expected[before_them : before_them + sum(map(len, chosen))]
        if found.shape != rows.shape:
            sys.exit(f"{path.name}: outputs are {found.shape}, expected {rows.shape}")
        off = numpy.abs(found - rows).max()
        worst = max(worst, off)
        if not off <= TOLERANCE:
            sys.exit(f"{path.name}: texts {first} to {end} in {length}: off by {off:.2g}")
    # A batch that is filled up with rows of padding alone, whose outputs are some numbers.
    filled = {name: numpy.concatenate([rows, numpy.zeros_like(rows)]) for name, rows in inputs.items()}
    for name, rows in zip([o.name for o in session.get_outputs()], session.run(None, filled)):
        if not numpy.isfinite(rows).all():
            sys.exit(f"{path.name}: {name} of padding alone are not finite")
    with numpy.errstate(over="ignore"):
        halves = ReferenceEvaluator(halved(onnx.load(str(path)))).run(None, filled)
    for wanted, rows in zip(session.run(None, filled), halves):
        off = numpy.abs(rows - wanted)[: len(wanted) // 2].max() / numpy.abs(wanted).max()
        worst_half = max(worst_half, off)
        if not (numpy.isfinite(rows).all() and off <= TOLERANCE_HALF):
            sys.exit(f"{path.name}: in fp16 off by {off:.2g}, or not finite in padding alone")
if not files:
    sys.exit("no file to check")
print(f"{len(files)} files, off by {worst:.2g} at most, in fp16 by {worst_half:.2g}")

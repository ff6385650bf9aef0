#!/usr/bin/env python3
"""check_transformers.py FOLDER: transformers loads each model that FOLDER/models.json lists and gives its outputs to 1e-5.

Of each: "folder", the class that loads it, whether it "needs_code" of the folder (it must not load without), sequences of
ids, and outputs: logits, those of answers' first and last tokens side by side, or of AutoModel the mean of the last states,
scaled to length 1. Ends with status 77 where there is no transformers.
"""

import json
import os
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
os.environ.update(HF_MODULES_CACHE=str(folder / "modules"), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}; PARE_PYTHON may name a Python that has it, sh cmake/setup.sh --peers makes one")
    sys.exit(77)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def outputs(model, ids):
    found = model(torch.tensor([ids]))
    if "logits" in found:
        return found.logits[0]
    if "start_logits" in found:
        return torch.stack([found.start_logits[0], found.end_logits[0]], -1)
    return torch.nn.functional.normalize(found.last_hidden_state[0].mean(0), dim=0)


def check(at, model):
    kind = getattr(transformers, model["class"])
    path = folder / model["folder"]
    if model["needs_code"]:
        try:
            kind.from_pretrained(path)
        except (RuntimeError, ValueError, OSError):
            pass  # of other widths than the weights
        else:
            sys.exit(f"{at} loads without its code")
    loaded, told = kind.from_pretrained(path, trust_remote_code=model["needs_code"], output_loading_info=True)
    needed = [name for name in told["missing_keys"] if "pooler" not in name]
    if needed or told["unexpected_keys"] and not model["has_others"]:
        sys.exit(f"{at} lacks {needed} or has no place for {told['unexpected_keys']}")
    with torch.no_grad():
        found = [torch.atleast_2d(outputs(loaded.eval(), ids)) for ids in model["sequences"]]
    difference = (torch.cat(found) - torch.tensor(model["outputs"])).abs().max().item()
    if not difference < 1e-5:
        sys.exit(f"{at}, a {type(loaded).__name__}, differs by {difference}")


models = json.loads((folder / "models.json").read_text())
for number, model in enumerate(models):
    check(f"model {number}, {model['folder']},", model)
print(f"{len(models)} models agree")

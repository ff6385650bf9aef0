#!/usr/bin/env python3
"""Prunes a language model by the formulas of other methods, and measures it as prune_decoder does: the same texts, pieces
and costs. Needs torch, transformers, accelerate and gguf.

python3 benchmarks/peers/decoders.py --model FILE.gguf --calibrate TEXTS --evaluate OTHER_TEXTS [--macs 0.9 0.8]
    [--samples 64] [--tokens 256] [--documents 40] [--methods flap,wanda-sp,magnitude,layers]

    flap       FLAP (arXiv:2312.11983), WIFV with AL-AM: how much a filter or a head's numbers fluctuate, times their
               weights' squares, made comparable over layers by means and deviations; biases for what is removed
    wanda-sp   |W| times the length of its inputs (arXiv:2306.11695) summed over filters; all layers as wide
    magnitude  the length of a filter's weights; all layers as wide
    layers     whole layers by how little they turn the stream (ShortGPT, arXiv:2403.03853)

Where queries share keys, a head is a group of them. Of heads, wanda-sp and magnitude keep all, since a fifth of 3 groups a
layer is less than one. Units go as long as the rest costs more than the share. All is measured on the dense model, where
wanda-sp's own code reads each layer's inputs behind the pruned ones before it.
"""

import argparse
import copy
import math
import pathlib
import time

import gguf
import torch
import transformers


def beginning(path):
    """What the file says that each text begins with."""
    fields = gguf.GGUFReader(path).fields
    value = lambda key: fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else None
    says = value("add_bos_token")
    adds = (value("model") == "llama" or value("pre") == "llama-bpe") if says is None else says
    return [int(value("bos_token_id"))] if adds else []


def pieces(tokenizer, path, begin, samples, tokens):
    """The documents one behind another, in pieces."""
    ids = []
    for line in path.read_text(encoding="utf8").split("\n"):
        if line.strip():
            ids += begin + tokenizer(line, add_special_tokens=False)["input_ids"]
    count = min(samples, len(ids) // tokens)
    return torch.tensor(ids[: count * tokens]).view(count, tokens)


def documents(tokenizer, path, begin, count, longest):
    found = []
    for line in path.read_text(encoding="utf8").split("\n"):
        ids = (begin + tokenizer(line, add_special_tokens=False)["input_ids"])[:longest] if line.strip() else []
        if len(ids) >= 2 and len(found) < count:
            found.append(torch.tensor(ids))
    return found


@torch.no_grad()
def losses(model, texts):
    """[text][token]"""
    return [
        torch.nn.functional.cross_entropy(model(t[None]).logits[0, :-1].float(), t[1:], reduction="none").double()
        for t in texts
    ]


class Sublayers:
    """What a model's units are and cost, as prune_decoder counts them."""

    def __init__(self, model, tokens):
        c = model.config
        self.layers = model.model.layers
        self.size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        self.groups = c.num_key_value_heads
        self.of_group = c.num_attention_heads // self.groups
        pairs = (tokens + 1) / 2  # keys that a query sees, on average
        self.group_cost = self.size * ((2 * self.of_group + 2) * c.hidden_size + 2 * self.of_group * pairs)
        self.filter_cost = 3 * c.hidden_size
        self.filters = c.intermediate_size
        self.dense = len(self.layers) * (self.groups * self.group_cost + self.filters * self.filter_cost)

    def readers(self):
        """(layer, whether it is attention, the matrix that reads units)"""
        for layer in self.layers:
            yield layer, True, layer.self_attn.o_proj
            yield layer, False, layer.mlp.down_proj


@torch.no_grad()
def moments(model, of, calibration):
    """Of each reader's inputs their means, variances and mean squares, and of each layer how it turns the stream."""
    sums, turns, hooks = {}, [0.0] * len(of.layers), []

    def read(matrix):
        def hook(_, inputs, __):
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
            s = sums.setdefault(matrix, [0, 0, 0])
            s[0] += len(x)
            s[1] = s[1] + x.sum(0)
            s[2] = s[2] + x.square().sum(0)

        return hook

    def turn(i):
        def hook(_, inputs, output):
            y = output[0] if isinstance(output, tuple) else output
            turns[i] += 1 - torch.nn.functional.cosine_similarity(inputs[0], y, dim=-1).mean().item()

        return hook

    for i, layer in enumerate(of.layers):
        hooks.append(layer.register_forward_hook(turn(i)))
    for _, _, matrix in of.readers():
        hooks.append(matrix.register_forward_hook(read(matrix)))
    for piece in calibration:
        model(piece[None])
    for hook in hooks:
        hook.remove()
    found = {}
    for matrix, (n, x, xx) in sums.items():
        mean = x / n
        found[matrix] = (mean, (xx / n - mean.square()) * n / (n - 1), xx / n)
    return found, turns


@torch.no_grad()
def remove(matrix, kept, mean=None):
    """The matrix without the inputs that are not kept, whose means become biases; masks do as removal does."""
    if mean is not None:
        bias = matrix.weight.double() @ torch.where(kept, torch.zeros_like(mean), mean)
        matrix.bias = torch.nn.Parameter(bias.to(matrix.weight.dtype))
    matrix.weight *= kept


def flap(model, of, share, found, _):
    heads, filters = [], []
    for _, attention, matrix in of.readers():
        metric = found[matrix][1] * matrix.weight.double().square().sum(0)
        if attention:
            metric = metric.square()
        metric = (metric - metric.mean()) / metric.std()
        if attention:
            metric = metric.view(of.groups, -1).mean(1)
        (heads if attention else filters).append(metric)
    metrics = [m for pair in zip(heads, filters) for m in pair]
    units = sorted((m.item(), s, u) for s, metric in enumerate(metrics) for u, m in enumerate(metric))
    masks = [torch.ones(len(m), dtype=torch.bool) for m in metrics]
    cost = of.dense
    for _, s, u in units:
        if cost <= share * of.dense:
            break
        masks[s][u] = False
        cost -= of.filter_cost if s % 2 else of.group_cost
    for mask, (_, attention, matrix) in zip(masks, of.readers()):
        kept = mask.repeat_interleave(len(found[matrix][0]) // of.groups) if attention else mask
        remove(matrix, kept, found[matrix][0])
    return cost


def as_wide(metric_of):
    def method(model, of, share, found, _):
        too_much = (1 - share) * of.dense / len(of.layers)
        out = min(of.filters, math.ceil(too_much / of.filter_cost))
        for layer, attention, matrix in of.readers():
            if attention:
                continue
            metric = metric_of(layer, matrix, found[matrix])
            kept = torch.ones(len(metric), dtype=torch.bool)
            kept[metric.argsort()[:out]] = False
            remove(matrix, kept)
        return of.dense - out * of.filter_cost * len(of.layers)

    return method


def wanda(_, matrix, found):
    return matrix.weight.double().abs().sum(0) * found[2].sqrt()


def magnitude(layer, matrix, _):
    rows = [layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight, matrix.weight.T]
    return sum(w.double().square().sum(1) for w in rows)


def layers(model, of, share, _, turns):
    out = math.ceil((1 - share) * len(of.layers) - 1e-9)
    gone = set(sorted(range(len(turns)), key=turns.__getitem__)[:out])
    model.model.layers = torch.nn.ModuleList(l for i, l in enumerate(model.model.layers) if i not in gone)
    return of.dense * (1 - out / len(turns))


METHODS = {"flap": flap, "wanda-sp": as_wide(wanda), "magnitude": as_wide(magnitude), "layers": layers}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--calibrate", type=pathlib.Path, required=True)
    p.add_argument("--evaluate", type=pathlib.Path, required=True)
    p.add_argument("--macs", type=float, nargs="+", default=[0.9])
    p.add_argument("--samples", type=int, default=64)
    p.add_argument("--tokens", type=int, default=256)
    p.add_argument("--documents", type=int, default=40)
    p.add_argument("--methods", default=",".join(METHODS))
    a = p.parse_args()
    unknown = set(a.methods.split(",")) - set(METHODS)
    if unknown:
        p.error(f"--methods knows {', '.join(METHODS)}, not {', '.join(sorted(unknown))}")
    where = {"pretrained_model_name_or_path": str(a.model.parent), "gguf_file": a.model.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    dense = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, use_cache=False).eval()
    begin = beginning(a.model)
    calibration = pieces(tokenizer, a.calibrate, begin, a.samples, a.tokens)
    texts = documents(tokenizer, a.evaluate, begin, a.documents, a.tokens)
    before = losses(dense, texts)
    print(f"dense: perplexity {math.exp(torch.cat(before).mean()):.2f}; {calibration.numel()} tokens to prune by, "
          f"{len(texts)} texts measured\n")
    print("| method | multiply-adds kept | perplexity | more, % | seconds |\n|---|---|---|---|---|")
    found, turns = moments(dense, of := Sublayers(dense, a.tokens), calibration)
    for share in a.macs:
        for name in a.methods.split(","):
            start = time.perf_counter()
            model = copy.deepcopy(dense)
            its_own = Sublayers(model, a.tokens)
            by_matrix = {new: found[old] for (_, _, new), (_, _, old) in zip(its_own.readers(), of.readers())}
            cost = METHODS[name](model, its_own, share, by_matrix, turns)
            seconds = time.perf_counter() - start
            after = losses(model, texts)
            more = torch.stack([y.mean() - x.mean() for x, y in zip(before, after)])
            mean, error = more.mean().item(), 2 * more.std().item() / math.sqrt(len(more))
            print(f"| {name} | {cost / of.dense:.3f} | {math.exp(torch.cat(after).mean()):.2f} | "
                  f"{100 * math.expm1(mean):.1f} ± {100 * math.exp(mean) * error:.1f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()

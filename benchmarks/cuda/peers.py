#!/usr/bin/env python3
"""Times the components beside PyTorch on one GPU: each takes its turn on the same data and stream, and the result is the
median of the paired ratios. Results that differ are an error.

python3 benchmarks/cuda/peers.py LIBRARY --out FILE.json

LIBRARY is libpare_cuda_peers.so as `cmake --preset bench -DPARE_CUDA=ON` builds it. Without PyTorch or a GPU it says so.
"""

import argparse
import ctypes
import datetime
import json
import math
import pathlib
import sys

try:
    import torch
except ImportError:
    torch = None

ROUNDS, MILLISECONDS = 21, 2  # a turn is repeated to so many


def quantile(values, q):
    return sorted(values)[int(q * (len(values) - 1) + 0.5)]


class Library:
    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        self.library.pare_soft_mask.restype = ctypes.c_double
        self.library.pare_compact.restype = ctypes.c_int64
        self.library.pare_stream(ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))

    def __getattr__(self, name):
        function = getattr(self.library, f"pare_{name}")

        def prepare(*arguments):
            ready = [ctypes.c_void_p(x.data_ptr()) if torch.is_tensor(x) else ctypes.c_int64(x) for x in arguments]
            call = lambda: function(*ready)
            call.arguments = arguments  # they live as long
            return call
        return prepare


def milliseconds(call, repeats):
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(repeats):
        call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / repeats


def race(rows, name, ours, peers, same):
    """`peers`: by name, calls of the same work; same(result of ours, of a peer) is what is wrong, or None."""
    calls = {"": ours, **peers}
    results = {who: call() for who, call in calls.items()}
    torch.cuda.synchronize()
    for who in peers:
        difference = same(results[""], results[who])
        if difference:
            sys.exit(f"peers.py: {name}: {who} has another result: {difference}")
    repeats = {who: max(1, math.ceil(MILLISECONDS / milliseconds(call, 3))) for who, call in calls.items()}
    times = {who: [] for who in calls}
    for _ in range(ROUNDS):
        for who, call in calls.items():
            times[who].append(milliseconds(call, repeats[who]))
    row = {"name": name, "ms": quantile(times[""], 0.5), "rounds": ROUNDS, "peers": []}
    for who in peers:
        ratios = [theirs / mine for mine, theirs in zip(times[""], times[who])]
        row["peers"].append({"name": who, "ms": quantile(times[who], 0.5), "ratio": quantile(ratios, 0.5),
                             "low": quantile(ratios, 0.1), "high": quantile(ratios, 0.9)})
    rows.append(row)
    print(f"{name}: {row['ms']:.3g} ms; " +
          "; ".join(f"{p['name']} {p['ratio']:.2f} ({p['low']:.2f} to {p['high']:.2f})" for p in row["peers"]), flush=True)


def close(tolerance, *pairs):
    """What is wrong with pairs of tensors that should be equal up to a share of their largest number, or None."""
    for mine, theirs in pairs:
        off = (mine.double() - theirs.double()).abs().max().item() / max(1e-30, theirs.double().abs().max().item())
        if not off <= tolerance:
            return f"off by {off:.2g} of the largest number"
    return None


def measure(library):
    rows, gpu = [], {"device": "cuda"}
    torch.manual_seed(1)
    for batch, heads, n in ((1, 12, 128), (32, 12, 128), (8, 12, 512)):
        p = torch.randn(batch, heads, n, n, **gpu).softmax(-1).half()
        scores = torch.empty(batch, n, **gpu)
        race(rows, f"importance of probabilities {batch} x {heads} x {n} x {n}, half", library.importance(p, batch, heads, n, scores),
             {"mean((1, 2))": lambda: p.mean(dim=(1, 2), dtype=torch.float32)},
             lambda _, theirs: close(1e-4, (scores, n * theirs)))
    for n in (1 << 16, 1 << 24):
        s, g = torch.randn(n, **gpu), torch.randn(n, **gpu)
        mask, ds, leaf = torch.empty_like(s), torch.empty_like(s), s.clone().requires_grad_()
        theta = torch.zeros((), requires_grad=True, **gpu)

        def autograd():
            leaf.grad = theta.grad = None
            torch.sigmoid((leaf - theta) / 0.25).backward(g)
            return theta.grad.item()
        race(rows, f"soft mask forward + backward, {n} scores", library.soft_mask(s, g, n, mask, ds), {"autograd": autograd},
             lambda *_: close(1e-4, (ds, leaf.grad)))
    for tokens, columns in ((128, 768), (32768, 768), (262144, 384)):
        x, m = torch.randn(tokens, columns, **gpu).half(), torch.randn(tokens, **gpu)
        y, dy, of_rows = torch.empty_like(x), torch.randn_like(x), m.half()
        race(rows, f"mask times rows {tokens} x {columns}, half", library.scale_rows(of_rows, x, tokens, columns, y),
             {"mul": lambda: x * of_rows[:, None]}, lambda _, theirs: close(0, (y, theirs)))
        dm = torch.empty_like(of_rows)
        race(rows, f"mask times rows backward {tokens} x {columns}, half",
             library.scale_rows_backward(of_rows, x, dy, tokens, columns, y, dm),
             {"mul; mul, sum": lambda: (dy * of_rows[:, None], (x * dy).sum(1))},
             lambda _, theirs: close(0, (y, theirs[0])) or close(5e-3, (dm, theirs[1])))
        index = torch.empty(tokens, dtype=torch.int32, **gpu)
        peers = {"x[mask]": lambda: x[m >= 0],
                 "nonzero, index_select": lambda: x.index_select(0, torch.nonzero(m >= 0).squeeze(1))}
        race(rows, f"compaction {tokens} x {columns}, half kept, half", library.compact(m, x, tokens, columns, index, y),
             peers, lambda mine, theirs: close(0, (y[:mine], theirs)))
        offsets = torch.arange(0, tokens + 1, 128, dtype=torch.int32, **gpu)
        kept = torch.empty_like(offsets)
        race(rows, f"compaction without waiting {tokens} x {columns}, half kept, half",
             library.compact_async(m, x, tokens, columns, offsets, tokens // 128, kept, index, y),
             peers, lambda _, theirs: close(0, (y[:kept[-1].item()], theirs)))
    attention = torch.nn.functional.scaled_dot_product_attention
    for batch, heads, n, size in ((32, 12, 128, 64), (8, 12, 512, 64), (1, 12, 4096, 64)):
        q, k, v = (torch.randn(batch, n, heads, size, **gpu).half() for _ in range(3))
        offsets = torch.arange(0, batch * n + 1, n, dtype=torch.int32, **gpu)
        out, scores = torch.empty_like(q), torch.empty(batch * n, **gpu)
        race(rows, f"attention with importance {batch} x {heads} x {n} x {size}, half",
             library.attention(q, k, v, offsets, batch, n, heads, size, out, scores),
             {"scaled_dot_product_attention without": lambda: attention(*(x.transpose(1, 2) for x in (q, k, v)))},
             lambda _, theirs: close(5e-3, (out, theirs.transpose(1, 2))))
    for batch, n, heads, groups, size in ((1, 4096, 32, 8, 128), (64, 4096, 32, 8, 128), (64, 4096, 12, 12, 64)):
        q, out = (torch.randn(batch, 1, heads, size, **gpu).half() for _ in range(2))
        k, v = (torch.randn(batch, n, groups, size, **gpu).half() for _ in range(2))
        queries, keys = (torch.arange(0, batch * i + 1, i, dtype=torch.int32, **gpu) for i in (1, n))
        scores = torch.empty(batch * n, **gpu)
        race(rows, f"step with importance {batch} x {heads} over {groups} x {n} x {size}, half",
             library.step(q, k, v, queries, keys, batch, n, heads, groups, size, out, scores),
             {"scaled_dot_product_attention without":
                  lambda: attention(*(x.transpose(1, 2) for x in (q, k, v)), enable_gqa=heads != groups)},
             lambda _, theirs: close(5e-3, (out, theirs.transpose(1, 2))))
    return rows


def measure_bert(rows):
    """PyTorch's encoder of BERT-base's shape, 256 sequences of 128 tokens in half: the peer of the benchmark program's encoder
    rows, which are of the same work. Forward passes with all that they wait for, as there; nothing is padded."""
    try:
        from transformers import BertConfig, BertModel
    except ImportError:
        print("skipped: BertModel, for there is no transformers", flush=True)
        return
    sequences, length = 256, 128
    shape = BertConfig()
    shape._attn_implementation = "sdpa"
    model = BertModel(shape, add_pooling_layer=False).cuda().half().eval()
    ids = torch.randint(5, shape.vocab_size, (sequences, length), device="cuda")
    for name, run in (("eager", model), ("compiled", torch.compile(model))):
        with torch.inference_mode():
            for _ in range(3):  # the first compiles
                run(input_ids=ids)
            times = [milliseconds(lambda: run(input_ids=ids), 1) for _ in range(ROUNDS)]
        row = {"name": f"BertModel {sequences} x {length}, half, sdpa, {name}", "ms": quantile(times, 0.5), "rounds": ROUNDS, "peers": [],
               "low": quantile(times, 0.1), "high": quantile(times, 0.9)}
        rows.append(row)
        print(f"{row['name']}: {row['ms']:.3g} ms ({row['low']:.3g} to {row['high']:.3g}), "
              f"{1e3 * sequences * length / row['ms']:.3g} tokens/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if not torch or not torch.cuda.is_available():
        print("skipped: " + ("no device" if torch else "no PyTorch"))
        return
    rows = measure(Library(arguments.library.resolve()))
    measure_bert(rows)
    report = {"date": datetime.date.today().isoformat(), "versions": f"PyTorch {torch.__version__}",
              "device": torch.cuda.get_device_name(), "rows": rows}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


main()

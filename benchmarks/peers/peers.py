#!/usr/bin/env python3
"""Times the components beside PyTorch, SciPy and ONNX Runtime: each takes its turn on the same data in one process, and the
result is the median of the paired ratios. What is not installed is left out. Results that differ are an error.

python3 benchmarks/peers/peers.py LIBRARY --out FILE.json [--filter REGEX] [--model DIR] [--texts NAME=TSV ...]
    [--pruned NAME=DIR ...] [--exported DENSE.onnx PRUNED.onnx]

LIBRARY is libpare_peers.so as the preset `bench` builds it. The encoder has the weights of --model, where given, and random
ones of BERT-base's shape. --texts adds 64 of a file's texts (a label and one or two texts by tabs), sorted by length, in
batches of 32; --pruned runs models on them that prune_encoder or learn_thresholds wrote from the one in --model. --exported
are the graphs that prune_encoder --export onnx wrote of the one in --model and of the one in the folder PRUNED.
"""

import argparse
import ctypes
import datetime
import importlib
import json
import math
import os
import pathlib
import re
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


numpy, torch, onnxruntime, transformers = map(optional, ("numpy", "torch", "onnxruntime", "transformers"))
linalg, sparse_linalg = optional("scipy.linalg"), optional("scipy.sparse.linalg")

SECONDS = 3  # a row, about
MOST_ROUNDS, LEAST_ROUNDS = 15, 3
TEXTS = 64  # of a file
REST, LONG_REST = 0.005, 0.15  # seconds until other libraries' threads stop waiting for work; ONNX Runtime's wait long
LONG = 0.1  # seconds; shorter work is repeated to 2 ms, after a call that is not timed


def seconds(work, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def quantile(values, q):
    values = sorted(values)
    return values[int(q * (len(values) - 1) + 0.5)]


class Library:
    """The components, by numpy arrays and numbers."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        for name in ("pare_soft_mask", "pare_rearrange", "pare_search"):
            getattr(self.library, name).restype = ctypes.c_double
        self.library.pare_compact.restype = ctypes.c_int64
        self.library.pare_encoder.restype = ctypes.c_void_p

    def __getattr__(self, name):
        function = getattr(self.library, f"pare_{name}")

        def converted(x):
            if isinstance(x, numpy.ndarray):
                return ctypes.c_void_p(x.ctypes.data)
            if isinstance(x, float):
                return ctypes.c_double(x)
            if isinstance(x, str):
                return ctypes.c_char_p(os.fsencode(x))
            return x if isinstance(x, ctypes.c_void_p) or x is None else ctypes.c_int64(x)

        def prepare(*arguments):
            """The call with these arguments, which stay alive with it."""
            ready = [converted(x) for x in arguments]
            call = lambda: function(*ready)
            call.arguments = arguments
            return call

        return prepare


class Rows:
    def __init__(self, library, names):
        self.library, self.names, self.rows = library, re.compile(names), []

    def threads(self, count):
        self.count = count
        self.library.threads(count)()
        if torch:
            torch.set_num_threads(count)

    def wants(self, name):
        return self.names.search(f"{name}/threads:{self.count}")

    def race(self, name, ours, peers, same=None, gains=(), **more):
        """`peers`: by name, calls of the same work. `same` compares results, once all have been called. `gains`: of whom, and
        which call is to be how many times as fast as which other, "" being ours."""
        if not self.wants(name):
            return
        calls = {"": ours, **peers}
        results, once = {}, {}
        for who, call in calls.items():
            start = time.perf_counter()
            results[who] = call()
            once[who] = time.perf_counter() - start
            if once[who] <= 1:  # what comes first is slower
                once[who] = seconds(call, 1)
        if same:
            for who in peers:
                difference = same(results[""], results[who], who)
                if difference:
                    sys.exit(f"peers.py: {name}: {who} has another result: {difference}")
        repeats = {who: 1 if t > LONG else max(1, math.ceil(0.002 / t)) for who, t in once.items()}
        turn = sum(t * (repeats[who] + (t <= LONG)) for who, t in once.items())
        rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(SECONDS / turn)))
        times = {who: [] for who in calls}
        for _ in range(rounds):
            for who, call in calls.items():
                if once[who] <= LONG:
                    call()
                times[who].append(seconds(call, repeats[who]))
                time.sleep(LONG_REST if "ONNX" in who else REST)

        def ratio(fast, slow):
            ratios = [theirs / mine for mine, theirs in zip(times[fast], times[slow])]
            return {"ratio": quantile(ratios, 0.5), "low": quantile(ratios, 0.1), "high": quantile(ratios, 0.9)}
        row = {"name": name, "threads": self.count, "ms": 1e3 * quantile(times[""], 0.5), "rounds": rounds, **more}
        if gains:
            found = [{"name": who, **ratio(fast, slow)} for who, fast, slow in gains]
            row["note"] = "as fast as dense, times: " + ", ".join(
                f"{gain['name']} {gain['ratio']:.2f} ({gain['low']:.2f} to {gain['high']:.2f})" for gain in found)
        row["peers"] = [{"name": who, "ms": 1e3 * quantile(times[who], 0.5), **ratio("", who)} for who in peers]
        self.rows.append(row)
        print(f"{name}/threads:{self.count}: {row['ms']:.3g} ms; " +
              "; ".join(f"{p['name']} {p['ratio']:.2f} ({p['low']:.2f} to {p['high']:.2f})" for p in row["peers"]), flush=True)


def close(tolerance, *pairs):
    """What is wrong with pairs of arrays that should be equal up to a share of their largest number, or None."""
    for mine, theirs in pairs:
        mine, theirs = numpy.asarray(mine), numpy.asarray(theirs)
        off = numpy.abs(mine - theirs).max() / max(1e-30, numpy.abs(theirs).max())
        if not off <= tolerance:
            return f"off by {off:.2g} of the largest number"
    return None


def normal(*shape):
    return numpy.random.default_rng(1).standard_normal(shape, dtype=numpy.float32)


def tokens_flow(rows):
    library = rows.library
    for batch, heads, n in ((32, 12, 128), (8, 12, 512), (1, 12, 128)):
        name = f"importance of probabilities {batch} x {heads} x {n} x {n}"
        if not rows.wants(name):
            continue
        p = normal(batch, heads, n, n)
        numpy.exp(p, out=p)
        p /= p.sum(-1, keepdims=True)
        scores, theirs, there = numpy.empty((batch, n), numpy.float32), torch.empty(batch, n), torch.from_numpy(p)
        rows.race(name, library.importance(p, batch, heads, n, scores),
                  {"mean((1, 2))": lambda: torch.mean(there, dim=(1, 2), out=theirs)},
                  lambda *_: close(1e-5, (scores, n * theirs.numpy())))

    n, threshold, temperature = 1 << 16, 1.0, 0.5
    s, g = normal(n), numpy.abs(normal(n)) + 1
    mask, ds = numpy.empty_like(s), numpy.empty_like(s)
    scores, theta = torch.from_numpy(s).clone().requires_grad_(), torch.tensor(threshold, requires_grad=True)

    def autograd():
        scores.grad = theta.grad = None
        torch.sigmoid((scores - theta) / temperature).backward(torch.from_numpy(g))
        return theta.grad.item()
    rows.race("soft mask forward + backward, 64 Ki scores", library.soft_mask(s, g, n, threshold, temperature, mask, ds),
              {"autograd": autograd}, lambda mine, theirs, _: close(1e-4, (ds, scores.grad), ([mine], [theirs])))

    for tokens, columns in ((4096, 384), (128, 384)):
        x, m = normal(tokens, columns), normal(tokens)
        y, there, theirs, of_rows = numpy.empty_like(x), torch.from_numpy(x), torch.empty(tokens, columns), torch.from_numpy(m)
        if tokens > 128:
            rows.race(f"mask times rows {tokens} x {columns}", library.scale_rows(m, x, tokens, columns, y),
                      {"mul": lambda: torch.mul(there, of_rows[:, None], out=theirs)}, lambda *_: close(0, (y, theirs)))
            g, dx, dm = normal(tokens, columns), numpy.empty_like(x), numpy.empty_like(m)
            leaf, mask_leaf = there.clone().requires_grad_(), of_rows.clone().requires_grad_()
            product = leaf * mask_leaf[:, None]
            found = []

            def backward():
                found[:] = torch.autograd.grad(product, (leaf, mask_leaf), torch.from_numpy(g), retain_graph=True)
            rows.race(f"mask times rows, backward, {tokens} x {columns}",
                      library.scale_rows_backward(m, x, g, tokens, columns, dx, dm), {"autograd": backward},
                      lambda *_: close(1e-5, (dx, found[0]), (dm, found[1])))
        index = numpy.empty(tokens, numpy.int32)
        kept = torch.empty(int((m >= 0).sum()), columns)

        def by_index():
            torch.index_select(there, 0, torch.nonzero(of_rows >= 0).squeeze(1), out=kept)
            return kept
        rows.race(f"compaction {tokens} x {columns}, half kept", library.compact(m, x, tokens, columns, 0.0, index, y),
                  {"x[mask]": lambda: there[of_rows >= 0], "nonzero, index_select": by_index},
                  lambda mine, theirs, _: close(0, (y[:mine], theirs)))

    for batch, heads, n, size in ((32, 12, 128, 32), (8, 12, 512, 32), (8, 12, 512, 64), (1, 12, 4096, 64)):
        name = f"attention with importance {batch} x {heads} x {n} x {size}"
        if not rows.wants(name):
            continue
        q, k, v = (torch.from_numpy(normal(batch, heads, n, size)).roll(i) for i in range(3))
        ours = [x.permute(1, 0, 2, 3).contiguous().numpy() for x in (q, k, v)]  # heads first
        out, scores = numpy.empty_like(ours[0]), numpy.empty(batch * n, numpy.float32)
        attention = torch.nn.functional.scaled_dot_product_attention
        same = lambda mine, theirs, _: close(1e-5, (out.transpose(1, 0, 2, 3), theirs))
        rows.race(name, library.attention(*ours, batch, heads, n, size, out, scores),
                  {"scaled_dot_product_attention without": lambda: attention(q, k, v)}, same)


def published_rearrangement(gradients, mask):
    """The published pass (arXiv:2204.09656, section 4.2): each kept unit joins the pruned ones, and the one whose return
    leaves the shortest sum of gradients goes back; sums over samples anew each time. gradients [units x samples]."""
    order = torch.argsort((gradients ** 2).sum(1)).tolist()
    pruned_count = int((mask == 0).sum())
    pruned = order[:pruned_count]
    for unit in order[pruned_count:]:
        pruned.append(unit)
        rows = gradients[pruned]
        del pruned[int(((rows.sum(0) - rows) ** 2).sum(1).argmin())]
    result = numpy.ones(len(order), numpy.uint8)
    result[pruned] = 0
    return result


def published_search(heads, filters, head_cost, filter_cost, budget):
    """The published search (section 4.1): for each number of heads, the most important ones of all layers and as many of the
    most important filters as the rest of the budget pays for. Returns half of the sum of the scores that are pruned."""
    heads, filters = -numpy.sort(-heads.ravel()), -numpy.sort(-filters.ravel())
    most = 0
    for count in range(1, heads.size + 1):
        left = budget - count * head_cost
        if left >= 0:  # the published code goes on over budget
            most = max(most, heads[:count].sum() + filters[: int(left / filter_cost)].sum())
    return (heads.sum() + filters.sum() - most) / 2


def structure_flow(rows):
    library = rows.library
    samples, units = 2048, 36864
    name = f"Fisher diagonal {samples} x {units}"
    if rows.wants(name):
        g = normal(samples, units)
        diagonal, there = numpy.empty(units), torch.from_numpy(g)
        rows.race(name, library.fisher_diagonal(g, samples, units, diagonal),
                  {"pow(2).sum(0)": lambda: there.pow(2).sum(0)},
                  lambda _, theirs, __: close(1e-5, (samples * diagonal, theirs)))

    for count, columns in ((16384, 1536), (8192, 3072)):
        name = f"Gram matrix {count} x {columns}"
        if rows.wants(name):
            x = normal(count, columns)
            out, there, theirs = numpy.empty((columns, columns), numpy.float32), torch.from_numpy(x), torch.empty(columns, columns)
            rows.race(name, library.gram(x, count, columns, out),
                      {"x.T @ x": lambda: torch.matmul(there.T, there, out=theirs)}, lambda *_: close(1e-4, (out, theirs)))

    if rows.count < os.cpu_count():
        return  # the rest takes long
    layers, heads, filters, hidden, tokens = 12, 12, 3072, 768, 128  # BERT-base
    head_cost, filter_cost = tokens * 4 * hidden * 64 + 2 * tokens * tokens * 64, tokens * 2 * hidden
    budget = 0.5 * layers * (heads * head_cost + filters * filter_cost)
    random = numpy.random.default_rng(4)
    of_heads, of_filters = random.exponential(size=(layers, heads)) ** 2, random.exponential(size=(layers, filters)) ** 2 / 256
    cost = numpy.empty(1)

    def no_worse(mine, *_):  # than at a thousandth of the dense cost less
        theirs = published_search(of_heads, of_filters, head_cost, filter_cost, 0.998 * budget)
        return None if 0 <= mine <= theirs and cost[0] <= budget else f"loss {mine} at {cost[0]} beside {theirs}"
    for multiple, check in ((1, no_worse), (16, None)):
        rows.race(f"search of widths, 12 x (12 heads + 3072 filters in multiples of {multiple})",
                  library.search(of_heads, of_filters, layers, heads, filters, float(head_cost), float(filter_cost),
                                 float(budget), multiple, cost),
                  {"published search, any filters": lambda: published_search(of_heads, of_filters, head_cost, filter_cost, budget)},
                  check)

    units = 3072
    for samples in (64, 2048):
        name = f"rearrangement {units} filters, {samples} samples, one sweep"
        if not rows.wants(name):
            continue
        g = normal(samples, units)
        columns = torch.from_numpy(numpy.ascontiguousarray(g.T))
        start = numpy.ones(units, numpy.uint8)
        start[numpy.argsort((g ** 2).sum(0))[: units // 2]] = 0
        mask = start.copy()
        loss = lambda m: float((g[:, m == 0].astype(numpy.float64).sum(1) ** 2).mean() / 2)

        def ours(sweeps):
            call = library.rearrange(g, samples, units, mask, sweeps)

            def again():
                mask[:] = start
                return call()
            return again
        found = {}

        def published():
            found["mask"] = published_rearrangement(columns, start)
        differ = lambda *_: None if (mask != found["mask"]).mean() <= 0.01 else "another mask after one sweep"
        rows.race(name, ours(1), {"published pass": published}, differ)
        ours(100)()
        rows.rows[-1]["note"] = (f"mean squared sum of the pruned gradients / 2: start {loss(start):.4g}, published "
                                 f"{loss(found['mask']):.4g}, all sweeps {loss(mask):.4g}")

    if not (linalg and sparse_linalg):
        return
    for n in (1536, 3072):
        name = f"ridge solve {n}, condition 1e4"
        if not rows.wants(name):
            continue
        random = numpy.random.default_rng(2)
        q = numpy.linalg.qr(random.standard_normal((n, n)))[0]
        g = (q * numpy.logspace(0, 4, n)) @ q.T
        g = (g + g.T) / 2
        z = random.standard_normal((n, 1))
        b = g @ z
        matrix, right = g.copy(), b.copy()
        call = library.ridge_solve(matrix, n, 0.0, right, 1)

        def ours():
            matrix[:], right[:] = g, b
            call()
            return right.copy()
        off = lambda x: float(numpy.linalg.norm(x.reshape(-1) - z[:, 0]) / numpy.linalg.norm(z))
        found = {}

        def published():
            found["z"] = sparse_linalg.lsmr(g, b[:, 0], damp=1)[0]
        rows.race(name, ours, {"LAPACK, scipy.linalg.solve": lambda: linalg.solve(g, b, assume_a="pos"),
                               "lsmr(damp=1), as published": published})
        rows.rows[-1]["note"] = f"error here {off(ours()):.1e}, lsmr {off(found['z']):.1e}"


def load(library, folder):
    found = library.encoder(str(folder))()
    if not found:
        sys.exit(f"peers.py: the encoder does not read {folder}")
    return ctypes.c_void_p(found)


def packed(library, network, batches, columns):
    """A call that encodes all batches, of lists of ids."""
    calls = []
    for sequences in batches:
        ids = numpy.array([i for s in sequences for i in s], numpy.int32)
        offsets = numpy.cumsum([0] + [len(s) for s in sequences]).astype(numpy.int64)
        out = numpy.empty((len(sequences), columns), numpy.float32)
        calls.append((library.encode(network, ids, offsets, len(sequences), out), out))

    def run():
        for call, _ in calls:
            call()
        return numpy.concatenate([out for _, out in calls])
    return run


def onnx_session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if threads > 1:  # else they would inherit the one core that OpenMP has bound this thread to
        options.add_session_config_entry("session.intra_op_thread_affinities",
                                         ";".join(str(core) for core in range(2, threads + 1)))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Encoders:
    """One model in all libraries."""

    def __init__(self, library, folder, threads):
        self.library, self.folder = library, str(folder)
        self.mine = load(library, folder)
        self.bert = transformers.BertModel.from_pretrained(folder, attn_implementation="sdpa", add_pooling_layer=False).eval()
        self.session = self.onnx(threads) if onnxruntime else None

    def onnx(self, threads):
        """With the fused layers of ONNX Runtime's own optimizer, which knows them in the eager form of attention."""
        from onnxruntime.transformers import optimizer
        eager = transformers.BertModel.from_pretrained(self.folder, attn_implementation="eager", add_pooling_layer=False).eval()

        class States(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.bert = eager

            def forward(self, ids, mask):
                return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        ids = torch.ones(2, 16, dtype=torch.int64)
        mask = torch.ones_like(ids)
        mask[1, 9:] = 0
        axes = {0: "batch", 1: "length"}
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.onnx"
            torch.onnx.export(States(), (ids, mask), path, input_names=["ids", "mask"], output_names=["states"],
                              dynamic_axes={"ids": axes, "mask": axes, "states": axes}, opset_version=17, dynamo=False)
            config = eager.config
            optimizer.optimize_model(path, model_type="bert", num_heads=config.num_attention_heads,
                                     hidden_size=config.hidden_size).save_model_to_file(path)
            return onnx_session(path, threads)

    @staticmethod
    def pooled(states, mask):
        mask = mask[:, :, None].astype(numpy.float32)
        mean = (states * mask).sum(1) / mask.sum(1)
        return mean / numpy.linalg.norm(mean, axis=1, keepdims=True)

    def packed(self, network, batches):
        return packed(self.library, network, batches, self.bert.config.hidden_size)

    def peers(self, batches):
        padded = []
        for sequences in batches:
            longest = max(map(len, sequences))
            ids = numpy.zeros((len(sequences), longest), numpy.int64)
            mask = numpy.zeros_like(ids)
            for i, s in enumerate(sequences):
                ids[i, : len(s)], mask[i, : len(s)] = s, 1
            padded.append((ids, mask))

        def by_torch():
            found = []
            with torch.inference_mode():
                for ids, mask in padded:
                    states = self.bert(input_ids=torch.from_numpy(ids),
                                       attention_mask=None if mask.all() else torch.from_numpy(mask)).last_hidden_state
                    found.append(self.pooled(states.numpy(), mask))
            return numpy.concatenate(found)

        def by_onnx():
            return numpy.concatenate([self.pooled(self.session.run(None, {"ids": ids, "mask": mask})[0], mask)
                                      for ids, mask in padded])
        return {"PyTorch BertModel": by_torch, **({"ONNX Runtime": by_onnx} if self.session else {})}

    def end(self):
        self.library.encoder_end(self.mine)()


def encoders(rows, arguments, threads):
    if not transformers:
        return
    rng = numpy.random.default_rng(3)
    same = lambda mine, theirs, _: close(2e-4, (mine, theirs))

    def named_shapes(name):
        return {f"{name}, {batch} x {n}": (batch, n) for batch, n in ((1, 32), (1, 128), (32, 128), (8, 512))}

    def race_shapes(name, found):
        for row, (batch, n) in named_shapes(name).items():
            batches = [rng.integers(5, found.bert.config.vocab_size, (batch, n)).tolist()]
            rows.race(row, found.packed(found.mine, batches), found.peers(batches), same, tokens=batch * n)

    def race_texts(name, found, label, path):
        tokenizer = transformers.BertTokenizerFast.from_pretrained(found.folder)
        lines = [line.split("\t")[1:] for line in path.read_text(encoding="utf8").split("\n") if line][:TEXTS]
        ids = sorted((tokenizer(*line, truncation=True, max_length=found.bert.config.max_position_embeddings)["input_ids"]
                      for line in lines), key=len)
        batches = [ids[i : i + 32] for i in range(0, len(ids), 32)]
        tokens = sum(map(len, ids))
        peers = found.peers(batches)
        rows.race(f"{name}, {label}, {len(ids)} texts", found.packed(found.mine, batches), peers, same, tokens=tokens)
        for pruned, folder in arguments.pruned:
            network = load(rows.library, folder)
            rows.race(f"{name}, {label}, {pruned}", found.packed(network, batches),
                      {"dense " + who: call for who, call in peers.items()}, tokens=tokens)
            rows.library.encoder_end(network)()

    if arguments.model:
        config = json.loads((arguments.model / "config.json").read_text())
        name = f"encoder, {config['num_hidden_layers']} x {config['hidden_size']}"
        texts = arguments.texts if threads == os.cpu_count() else []
        if texts or any(map(rows.wants, named_shapes(name))):
            found = Encoders(rows.library, arguments.model, threads)
            race_shapes(name, found)
            for label, path in texts:
                race_texts(name, found, label, path)
            found.end()
    name = "encoder, 12 x 768"
    if threads > 1 and any(map(rows.wants, named_shapes(name))):
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(1)
            transformers.BertModel(transformers.BertConfig(vocab_size=1000), add_pooling_layer=False).save_pretrained(folder)
            found = Encoders(rows.library, folder, threads)
            race_shapes(name, found)
            found.end()


def exports(rows, arguments, threads):
    """What ONNX Runtime gains by pruning, by graphs as prune_encoder writes them, and the encoder here."""
    if not (onnxruntime and arguments.model and arguments.exported) or threads < os.cpu_count():
        return
    folders = {"dense": arguments.model, "pruned": arguments.exported[1].with_suffix("")}
    config = json.loads((arguments.model / "config.json").read_text())
    sessions = {kind: onnx_session(graph, threads) for kind, graph in zip(folders, arguments.exported)}
    networks = {kind: load(rows.library, folder) for kind, folder in folders.items()}
    rng = numpy.random.default_rng(4)
    for batch, n in ((32, 128), (1, 32)):
        ids = rng.integers(5, config["vocab_size"], (batch, n))
        given = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}

        def by_onnx(session):
            inputs = {i.name: given[i.name] for i in session.get_inputs()}
            return lambda: session.run(None, inputs)[0]
        here = {kind: packed(rows.library, network, [ids.tolist()], config["hidden_size"]) for kind, network in networks.items()}
        there = {kind: by_onnx(session) for kind, session in sessions.items()}
        if off := close(2e-4, (here["dense"](), there["dense"]())):
            sys.exit(f"peers.py: {arguments.exported[0]} is another model than {arguments.model}: {off}")
        rows.race(f"exported encoder, {config['num_hidden_layers']} x {config['hidden_size']}, {batch} x {n}, pruned", here["pruned"],
                  {"ONNX Runtime, pruned": there["pruned"], "ONNX Runtime, dense": there["dense"], "here, dense": here["dense"]},
                  lambda mine, theirs, who: close(2e-4, (mine, theirs)) if who.endswith("pruned") else None,
                  [("ONNX Runtime", "ONNX Runtime, pruned", "ONNX Runtime, dense"), ("here", "", "here, dense")], tokens=batch * n)
    for network in networks.values():
        rows.library.encoder_end(network)()


def versions():
    """What the rows were measured against."""
    found = []
    if torch:
        library = next((line.strip(" -") for line in torch.__config__.show().split("\n") if "Math Kernel" in line), "no MKL")
        found.append(f"PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}; {library})")
    for name in ("numpy", "scipy", "transformers", "onnxruntime"):
        if module := optional(name):
            found.append(f"{name} {module.__version__}")
    return ", ".join(found)


def named(text):
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=PATH")
    return name, pathlib.Path(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--filter", default=".", help="of names, a regular expression")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--texts", type=named, action="append", default=[])
    parser.add_argument("--pruned", type=named, action="append", default=[])
    parser.add_argument("--exported", type=pathlib.Path, nargs=2, metavar=("DENSE.onnx", "PRUNED.onnx"))
    arguments = parser.parse_args()
    if not (numpy and torch):
        print("peers.py: NumPy and PyTorch are not installed (sh cmake/setup.sh --peers does): no peers", file=sys.stderr)
        return
    rows = Rows(Library(arguments.library.resolve()), arguments.filter)
    for threads in sorted({1, os.cpu_count()}):
        rows.threads(threads)
        tokens_flow(rows)
        structure_flow(rows)
        encoders(rows, arguments, threads)
        exports(rows, arguments, threads)
    report = {"date": datetime.date.today().isoformat(), "versions": versions(), "rows": rows.rows}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


main()

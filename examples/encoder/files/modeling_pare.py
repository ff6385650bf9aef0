"""Encoders whose layers differ in heads, their numbers and filters, for transformers.

AutoModel.from_pretrained(FOLDER, trust_remote_code=True), or another of transformers' classes that the folder's config.json
names under auto_map, makes one of the model in the folder that this file is in. The widths of its layers are in config.json
under "pare"; all else is transformers' own class of the family. Tokens are not dropped here: their thresholds are for pare.
"""

import functools

import transformers
from torch import nn

# What layers and their matrices are called; the attention is the module that makes heads of its input.
USUAL = {
    "layers": "encoder.layer",
    "attention": "attention.self",
    "inputs": ("query", "key", "value"),
    "attention_output": "attention.output.dense",
    "filters": "intermediate.dense",
    "output": "output.dense",
}
NAMES = {
    "distilbert": {
        "layers": "transformer.layer",
        "attention": "attention",
        "inputs": ("q_lin", "k_lin", "v_lin"),
        "attention_output": "attention.out_lin",
        "filters": "ffn.lin1",
        "output": "ffn.lin2",
    },
    "mpnet": {
        **USUAL,
        "attention": "attention.attn",
        "inputs": ("q", "k", "v"),
        "attention_output": "attention.attn.o",
        "biased": "attention",
    },
}


class NoHeads(nn.Module):
    """An attention without heads: what is left of it is the bias behind them, where that is a part of it."""

    def __init__(self, attention, output):
        super().__init__()
        for name, part in attention.named_children():
            self.add_module(name, part)
        self.output = output

    def forward(self, *inputs, **others):
        nothing = (*inputs, *others.values())[0][..., :0]  # the first is the states, whatever it is called
        return getattr(self, self.output, nn.Identity())(nothing), None


class NarrowHeads(nn.Linear):
    """Heads' queries, keys or values of fewer numbers, made as long as transformers has all by zeros."""

    def __init__(self, inputs, heads, numbers, size, factor=1):
        super().__init__(inputs, heads * numbers)
        self.heads, self.numbers, self.size, self.factor = heads, numbers, size, factor

    def forward(self, states):
        narrow = super().forward(states).unflatten(-1, (self.heads, self.numbers))
        return nn.functional.pad(self.factor * narrow, (0, self.size - self.numbers)).flatten(-2)


class NarrowOutput(nn.Linear):
    """Reads contexts of such values, without the zeros."""

    def __init__(self, heads, numbers, outputs):
        super().__init__(heads * numbers, outputs)
        self.heads, self.numbers = heads, numbers

    def forward(self, context):
        return super().forward(context.unflatten(-1, (self.heads, -1))[..., : self.numbers].flatten(-2))


class Buckets(nn.Module):
    """In the place of biases that layers share: leaves buckets of distances as they are, for the layers' own biases."""

    def forward(self, buckets):
        return buckets[..., None]


def own_bias(attention, inputs, others):
    buckets = others["position_bias"][:, 0]
    return inputs, {**others, "position_bias": attention.relative_attention_bias(buckets).permute(0, 3, 1, 2)}


def narrow(encoder, config):
    """Gives the layers of an encoder, whose weights are still to be read, the widths in config.json."""
    widths = getattr(config, "pare", None) or {}
    names = NAMES.get(config.model_type, USUAL)
    layers = encoder.get_submodule(names["layers"])
    hidden, all_heads = config.hidden_size, config.num_attention_heads
    size = hidden // all_heads
    heads = widths.get("heads", [all_heads] * len(layers))
    queries, values = (widths.get(name, [size] * len(layers)) for name in ("queries", "values"))
    filters = widths.get("filters")
    for number, layer in enumerate(layers):
        attention = layer.get_submodule(names["attention"])
        inner = heads[number] * size
        for name in names["inputs"]:
            attention.set_submodule(name, nn.Linear(hidden, inner))
        layer.set_submodule(names["attention_output"], nn.Linear(inner, hidden))
        if heads[number] > 0 and queries[number] != size:
            factor = (size / queries[number]) ** 0.25  # transformers divides logits by the root of `size`
            for name in names["inputs"][:2]:
                attention.set_submodule(name, NarrowHeads(hidden, heads[number], queries[number], size, factor))
        if heads[number] > 0 and values[number] != size:
            attention.set_submodule(names["inputs"][2], NarrowHeads(hidden, heads[number], values[number], size))
            layer.set_submodule(names["attention_output"], NarrowOutput(heads[number], values[number], hidden))
        # Some versions of transformers ask the attention how wide it is.
        for name in ("num_attention_heads", "n_heads", "all_head_size", "dim"):
            if hasattr(attention, name):
                setattr(attention, name, heads[number] if "heads" in name else inner)
        if heads[number] == 0:
            output = names["attention_output"].removeprefix(names["attention"] + ".")
            layer.set_submodule(names["attention"], NoHeads(attention, output))
        if filters:
            layer.set_submodule(names["filters"], nn.Linear(hidden, filters[number]))
            layer.set_submodule(names["output"], nn.Linear(filters[number], hidden))
        if "biased" in names and any(one != all_heads for one in heads):
            biased = layer.get_submodule(names["biased"])
            biased.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, heads[number])
            biased.register_forward_pre_hook(own_bias, with_kwargs=True)
            encoder.encoder.relative_attention_bias = Buckets()


class Narrow:
    """Comes before a class of transformers'."""

    def __init__(self, config, *others, **options):
        super().__init__(config, *others, **options)
        narrow(self.base_model, config)


@functools.cache
def __getattr__(name):
    """PareBertModel is transformers' BertModel of such widths, and so for all classes of the families."""
    base = getattr(transformers, name[len("Pare") :], None) if name.startswith("Pare") else None
    if base is None:
        raise AttributeError(f"module {__name__} has no {name}")
    return type(name, (Narrow, base), {"__module__": __name__})

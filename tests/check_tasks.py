#!/usr/bin/env python3
"""check_tasks.py FOLDER: what prune_encoder, whose path is in FOLDER/program, says of small random models for tags of words and
for answers is what transformers' outputs for its own tokens mean, by seqeval and by the definition of SQuAD's measures. Ends
with status 77 where there is no transformers or seqeval.
"""

import collections
import json
import os
import pathlib
import random
import re
import string
import subprocess
import sys

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
try:
    import seqeval.metrics
    import torch
    import transformers
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
except ImportError as missing:
    print(f"skipped: {missing}; PARE_PYTHON may name a Python that has it")
    sys.exit(77)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

LONGEST = 48
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
PIECES = ["the", "a", "river", "Zoë", "naïve", "“quoted”", "1,000.5", "東京", "x-ray", "don't", "U.S.", "e\u0301t\u00e9", "…",
          "harbour", "rains", "Oslo", "trains,", "over", "stories.", "ﬁnds", "über", "Straße", "and", "old"]
draw = random.Random(1)
folder = pathlib.Path(sys.argv[1])
program = (folder / "program").read_text()


def words(most):
    return [draw.choice(PIECES) for _ in range(draw.randint(1, most))]


def loaded(tokenizer, names, between=1):
    """With the tokens around texts: begin, end, and how many of these stand between two texts."""
    begin, pad, end, unknown, mask = names
    second = 1 if between == 1 else 0
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A " + f"{end} " * between + f"$B:{second} {end}:{second}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (begin, end)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=begin, pad_token=pad, sep_token=end, unk_token=unknown, mask_token=mask,
        model_max_length=LONGEST)


def word_piece(texts):
    names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=90, special_tokens=names, show_progress=False))
    return loaded(t, names)


def byte_level(texts):
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, special_tokens=names, show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return loaded(t, names, 2)


def unigram(texts):
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=120, special_tokens=names, unk_token="<unk>",
                                                         show_progress=False))
    return loaded(t, names, 2)


def questions(some_have_none):
    paragraphs = []
    for _ in range(8):
        context, asked = words(60), []
        text = draw.choice([" ", "  "]).join(context)
        for _ in range(4):
            answer = draw.choice(context)
            none = some_have_none and draw.random() < 0.3
            right = [] if none else [{"text": answer, "answer_start": text.index(answer)}]
            asked.append({"id": str(draw.random()), "question": " ".join(words(6)) + "?", "answers": right, "is_impossible": none})
        paragraphs.append({"context": text, "qas": asked})
    return {"data": [{"paragraphs": paragraphs}]}


def normalized(text):
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", kept).split())


def f1(given, right):
    x, y = normalized(given).split(), normalized(right).split()
    if not x or not y:
        return float(x == y)
    return 2 * sum((collections.Counter(x) & collections.Counter(y)).values()) / (len(x) + len(y))


def answer(model, tokenizer, context, question, may_have_none):
    asked = question.lstrip()
    taken = len(tokenizer(asked, add_special_tokens=False)["input_ids"]) + tokenizer.num_special_tokens_to_add(pair=True)
    found = tokenizer(asked, context, truncation="only_second", max_length=LONGEST, stride=min(128, (LONGEST - taken) // 2),
                      return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True)
    spans, none = [], []
    for w, ids in enumerate(found["input_ids"]):
        types = {"token_type_ids": torch.tensor([found["token_type_ids"][w]])} if model.config.type_vocab_size > 1 else {}
        logits = model(torch.tensor([ids]), **types)
        first, last = logits.start_logits[0].tolist(), logits.end_logits[0].tolist()
        none.append(first[0] + last[0])
        of_context = [i for i, of in enumerate(found.sequence_ids(w)) if of == 1]
        best = [sorted(of_context, key=lambda i: -of[i])[:20] for of in (first, last)]
        places = found["offset_mapping"][w]
        spans += [(first[i] + last[j], places[i][0], places[j][1]) for i in best[0] for j in best[1] if i <= j < i + 30]
    score, begin, end = max(spans, key=lambda span: span[0])
    return "" if may_have_none and min(none) > score else context[begin:end]


def rate_answers(model, tokenizer, given, may_have_none):
    both = []
    for paragraph in given["data"][0]["paragraphs"]:
        for question in paragraph["qas"]:
            said = answer(model, tokenizer, paragraph["context"], question["question"], may_have_none)
            right = [a["text"] for a in question["answers"] if normalized(a["text"])] or [""]
            both.append((max(f1(said, r) for r in right), max(normalized(said) == normalized(r) for r in right)))
    return {"answer_f1": sum(b[0] for b in both) / len(both), "exact_match": sum(b[1] for b in both) / len(both)}


def rate_tags(model, tokenizer, sentences):
    expected, given = [], []
    for sentence, tags in sentences:
        found = tokenizer(sentence, is_split_into_words=True, return_token_type_ids=True)
        classes = model(torch.tensor([found["input_ids"]])).logits[0].argmax(-1).tolist()
        of_word = {}
        for token, word in enumerate(found.word_ids()):
            if word is not None:
                of_word.setdefault(word, TAGS[classes[token]])
        expected.append([tags[word] for word in of_word])
        given.append(list(of_word.values()))
    measures = {"entity_f1": seqeval.metrics.f1_score, "precision": seqeval.metrics.precision_score,
                "recall": seqeval.metrics.recall_score}
    return {name: float(measure(expected, given)) for name, measure in measures.items()}


def check(name, model, tokenizer, data, expected):
    at = folder / name
    model.save_pretrained(at)
    tokenizer.save_pretrained(at)
    subprocess.run([program, "--model", at, "--calibrate", folder / "text" if "tags" in name else data, "--evaluate", data,
                    "--samples", "4", "--macs", "0.8", "--out", folder / "out", "--json", folder / "report"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    report = json.loads((folder / "report").read_text())
    for measure, value in expected.items():
        if not abs(report[measure + "_dense"] - value) < 1e-9:
            sys.exit(f"{name}: {measure} is {report[measure + '_dense']}, expected {value}")


sentences = [(sentence, [draw.choice(TAGS) for _ in sentence]) for sentence in (words(5) for _ in range(60))]
(folder / "tagged").write_text("\n\n".join("\n".join(map(" ".join, zip(*s))) for s in sentences) + "\n")
texts = [" ".join(words(40)) for _ in range(300)]
(folder / "text").write_text("\n".join(texts[:8]) + "\n")
torch.manual_seed(1)
count = 0
with torch.no_grad():
    for family, make in [("Bert", word_piece), ("Roberta", byte_level), ("XLMRoberta", unigram)]:
        tokenizer = make(texts)
        config = getattr(transformers, family + "Config")(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=LONGEST + 4, pad_token_id=1, initializer_range=0.3,
            type_vocab_size=2 if family == "Bert" else 1, id2label=dict(enumerate(TAGS)))
        tagger = getattr(transformers, family + "ForTokenClassification")(config).eval()
        check(f"{family}-tags", tagger, tokenizer, folder / "tagged", rate_tags(tagger, tokenizer, sentences))
        config.num_labels = 2
        reader = getattr(transformers, family + "ForQuestionAnswering")(config).eval()
        for some_have_none in (False, True):
            asked = questions(some_have_none)
            (folder / "asked").write_text(json.dumps(asked))
            check(f"{family}-answers", reader, tokenizer, folder / "asked",
                  rate_answers(reader, tokenizer, asked, some_have_none))
        count += 3
print(f"{count} models and files agree")

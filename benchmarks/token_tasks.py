#!/usr/bin/env python3
"""Fine-tunes a sentence encoder for tasks, learns for each which tokens it can drop from what the tuned model gives, and
prints tables in Markdown; `report.py --run tokens/tasks` keeps them.

python3 benchmarks/token_tasks.py --program learn_thresholds --model DIR --data DIR --work DIR [--only TASK,...] [--first]

DATA holds sst2, mrpc and stsb (train.tsv, dev.tsv) and bbc (train.tsv, of which a fifth is kept to evaluate on), as
learn_thresholds reads them. Runs whose report is in WORK already are not run again.
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys

# Epochs of fine-tuning; examples a step; epochs of soft masks, of the two of learning: a hundred steps or more, where
# two epochs have as many; shares of multiply-adds to reach. sst2 fine-tunes on all of its
# text and learns thresholds on a part. Embeddings, for stsb, are learned from sentences of other tasks too.
TASKS = {
    "mrpc": {"kind": "classify", "tune": 3, "batch": 16, "soft": 0.5, "targets": [0.5, 0.33, 0.66]},
    "bbc": {"kind": "classify", "tune": 1, "batch": 8, "soft": 1, "targets": [0.33, 0.5, 0.66], "tokens": 512},
    "stsb": {"kind": "similarity", "tune": 2, "batch": 16, "soft": 0.25, "targets": [0.5, 0.33, 0.66],
             "sentences": ["stsb", "mrpc"]},
    "sst2": {"kind": "classify", "tune": 1, "batch": 32, "soft": 0.25, "targets": [0.5, 0.33, 0.66],
             "examples": 16000},
}
BASELINES = "calibrated,hand-set,top-k,schedule"
SHIFTED = ["mrpc", "sst2"]  # from short examples to long ones


def read(path):
    return [line for line in path.read_text(encoding="utf8").split("\n") if line]


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf8")


def split(data, work):
    """Writes what is to train and to evaluate on, the same for each call."""
    chance = random.Random(1)
    for task, how in TASKS.items():
        train = read(data / task / "train.tsv")
        dev = data / task / "dev.tsv"
        chance.shuffle(train)
        held_out = len(train) // 5 if not dev.exists() else 0
        dev = train[:held_out] if held_out else read(dev)
        train = train[held_out:]
        write(work / f"{task}_train.tsv", train)
        write(work / f"{task}_dev.tsv", dev)
        write(work / f"{task}_learn.tsv", train[: how.get("examples")])
        if "sentences" in how:
            text = {s for name in how["sentences"] for line in read(data / name / "train.tsv") for s in line.split("\t")[1:]}
            text = sorted(text)
            random.Random(1).shuffle(text)
            write(work / f"{task}_sentences.txt", text)
        if task in SHIFTED:
            for lines, name in ((train, "learn"), (dev, "dev")):
                by_length = sorted(lines, key=lambda line: len(line.split()))
                halves = by_length[: len(lines) // 2], by_length[len(lines) // 2 :]
                for half, which in zip(halves, ("short", "long")):
                    chance.shuffle(half)
                    write(work / f"{task}_{name}_{which}.tsv", half[: how.get("examples")])


class Runs:
    def __init__(self, arguments):
        self.arguments, self.work = arguments, arguments.work

    def run(self, name, task, kind, model, train, evaluate, *options):
        """One run of the program; returns its report."""
        report = self.work / f"{name}.json"
        if not report.exists():
            print(f"{name} ...", file=sys.stderr, flush=True)
            command = [self.arguments.program, "--model", model, "--task", kind, "--batch", str(TASKS[task]["batch"]),
                       "--train", self.work / f"{task}_{train}", "--evaluate", self.work / f"{task}_{evaluate}.tsv",
                       "--out", self.work / name, "--json", report, *options]
            with open(self.work / f"{name}.txt", "w") as text:
                subprocess.run(command, check=True, stdout=text)
        return json.loads(report.read_text())

    def tuned(self, task):
        """The folder of a model that is fine-tuned for the task."""
        model = self.arguments.model
        if "tokens" in TASKS[task]:
            longer = self.work / f"{task}_model"
            if not longer.exists():
                shutil.copytree(model, longer)
                settings = json.loads((longer / "sentence_bert_config.json").read_text())
                settings["max_seq_length"] = TASKS[task]["tokens"]
                (longer / "sentence_bert_config.json").write_text(json.dumps(settings))
            model = longer
        self.run(f"{task}_tuned", task, TASKS[task]["kind"], model, "train.tsv", "dev", "--stage", "finetune", "--epochs",
                 str(TASKS[task]["tune"]))
        return self.work / f"{task}_tuned"

    def learn(self, name, task, train, evaluate, target, *options):
        """The report on thresholds of the fine-tuned model: learned on soft masks with its weights as they are, then
        weights with the tokens gone, two epochs in all."""
        kind, file, soft = TASKS[task]["kind"], f"{train}.tsv", TASKS[task]["soft"]
        rate = "0,2e-4"
        if "sentences" in TASKS[task]:
            kind, file, rate = "distill", "sentences.txt", "0,1e-3"
        return self.run(name, task, kind, self.tuned(task), file, evaluate, "--stage", "soft,hard", "--epochs",
                        f"{soft},{2 - soft}", "--rate", rate, "--target-macs", str(target), *options)

    def learned(self, task, target):
        return self.learn(f"{task}_{target}", task, "learn", "dev", target, "--baselines", BASELINES)

    def shifted(self, task, scores):
        """Thresholds learned on the shorter half, evaluated on the longer one."""
        baselines = ["--baselines", "schedule"] if scores == "relative" else []
        return self.learn(f"{task}_{scores}", task, "learn_short", "dev_long", 0.5, "--scores", scores, "--dev",
                          self.work / f"{task}_dev_short.tsv", *baselines)


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("program", "model", "data", "work"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--only", default=",".join(TASKS), help="tasks, by commas")
    parser.add_argument("--first", action="store_true", help="only the first share of each task, an hour and a half instead of five")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    split(arguments.data, arguments.work)
    runs, tasks = Runs(arguments), arguments.only.split(",")
    shifted = [(task, scores) for task in tasks if task in SHIFTED for scores in ("relative", "per_query")]
    for task in tasks:  # what says most first
        runs.learned(task, TASKS[task]["targets"][0])
    for task, scores in shifted:
        runs.shifted(task, scores)

    row("task", "tokens kept by", "share of MACs", "metric", "less than dense", "speedup, batch 32", "batch 1")
    row(*["---"] * 7)
    for task in tasks:
        for i, target in enumerate(TASKS[task]["targets"][: 1 if arguments.first else None]):
            found = runs.learned(task, target)
            dense = 100 * found["metric_dense"]
            result = 100 * found["metric_pruned"]
            if i == 0:
                row(task, "dense", "1", f"{dense:.2f}", "", "1", "1")
            row(task, "learned thresholds", f"{found['macs_ratio']:.3f}", f"{result:.2f}", f"{dense - result:.2f}",
                f"{found['speedup']:.2f}", f"{found['speedup_batch_1']:.2f}")
            for point in found["curve"]:  # alphas that cost about as much, or what training costs without any token gone
                near = i == 0 and point["alpha"] != 1 and abs(point["macs_ratio"] / found["macs_ratio"] - 1) <= 0.2
                if near or (point["alpha"] == 0 and target == max(TASKS[task]["targets"])):
                    result = 100 * point["metric"]
                    row(task, f"the same, alpha {point['alpha']:g}", f"{point['macs_ratio']:.3f}", f"{result:.2f}",
                        f"{dense - result:.2f}", "", "")
            for other in found["baselines"]:
                result = 100 * other["metric"]
                row(task, other["name"], f"{other['macs_ratio']:.3f}", f"{result:.2f}", f"{dense - result:.2f}", "", "")

    print()
    row("task", "tokens kept by", "share of MACs, short", "share, long", "metric, long", "less than dense")
    row(*["---"] * 6)
    for task, scores in shifted:
        found = runs.shifted(task, scores)
        dense, result = 100 * found["metric_dense"], 100 * found["metric_pruned"]
        short = next(point for point in found["curve"] if point["alpha"] == 1)
        row(task, f"thresholds, {scores}", f"{short['macs_ratio']:.3f}", f"{found['macs_ratio']:.3f}", f"{result:.2f}",
            f"{dense - result:.2f}")
        for other in found["baselines"]:
            result = 100 * other["metric"]
            row(task, "fixed schedule", "", f"{other['macs_ratio']:.3f}", f"{result:.2f}", f"{dense - result:.2f}")


main()

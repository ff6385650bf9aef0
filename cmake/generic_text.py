#!/usr/bin/env python3
"""Writes short English texts of all kinds, the example sentences of WordNet, a line each, for prune_encoder's --generic.

    apt-get install wordnet-base
    python3 cmake/generic_text.py >generic.txt
    python3 cmake/generic_text.py FOLDER >generic.txt      where WordNet's data.noun and so on are elsewhere

Exit status 2 if they are not there. WordNet is Princeton University's, under a licence of its own.
"""

import re
import sys
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")
FEWEST_WORDS = 4


def texts(line):
    """Of a line of WordNet's, behind whose bar are definitions and, quoted, examples. Definitions are mostly no sentences:
    models pruned on them too lose more on other text."""
    examples = re.findall(r'"([^"]+)"', line.partition("|")[2])
    return [text for text in examples if len(text.split()) >= FEWEST_WORDS]


def main():
    if len(sys.argv) > 2:
        print(f"usage: {sys.argv[0]} [FOLDER]", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1] if len(sys.argv) == 2 else "/usr/share/wordnet")
    for part in PARTS:
        try:
            with open(folder / f"data.{part}", encoding="latin-1") as file:
                for line in file:
                    if not line.startswith("  "):  # the licence
                        sys.stdout.write("".join(text + "\n" for text in texts(line)))
        except OSError as error:
            print(f"generic_text.py: {error}: install wordnet-base, or name the folder of WordNet's files", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

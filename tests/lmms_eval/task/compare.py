"""Check that two models answered every question under lmms-eval, and say how many answers are the same.

python compare.py questions.jsonl output/dpn_llava output/llava

lmms-eval's own `llava` rounds pixels to float16 whatever the model's dtype, so answers may differ.
"""

import json
import sys
from pathlib import Path


def answers(folder, count):
    """Read the one file of samples that lmms-eval logged: answers in the questions' order."""
    files = list(folder.rglob("*_samples_*.jsonl"))
    if len(files) != 1:
        sys.exit(f"{folder}: {len(files)} files of samples, expected one: lmms-eval failed, see above")
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    texts = {row["doc_id"]: row["filtered_resps"] for row in rows}
    if sorted(texts) != list(range(count)):
        sys.exit(f"{files[0]}: answers to questions {sorted(texts)}, expected to all {count}")
    return [texts[number] for number in range(count)]


def main(questions, *folders):
    count = len(questions.read_text().splitlines())
    first, second = (answers(folder, count) for folder in folders)
    same = sum(one == other for one, other in zip(first, second, strict=True))
    names = " and ".join(folder.name for folder in folders)
    sys.stdout.write(f"{names} answered {count} questions each, {same} of them alike\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

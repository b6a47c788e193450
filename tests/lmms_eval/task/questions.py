"""Write a few of the small world's POPE questions with their answers into one file.

python questions.py playground/toy/eval/pope questions.jsonl
"""

import json
import sys
from pathlib import Path

COUNT = 12


def main(folder, output):
    lines = [json.loads(line) for line in (folder / "llava_pope_test.jsonl").read_text().splitlines()]
    answers = {}
    for path in (folder / "coco").iterdir():
        for line in path.read_text().splitlines():
            label = json.loads(line)
            answers[label["question_id"]] = label["label"]
    rows = [{**line, "answer": answers[line["question_id"]]} for line in lines[:COUNT]]
    output.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

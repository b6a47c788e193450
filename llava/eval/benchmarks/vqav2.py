"""VQAv2: open questions about COCO images. Test-dev is the server's; val is scored here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.eval.benchmark import SHORT_ANSWER, Question
from llava.eval.benchmarks.hidden_test import (
    HiddenTestBenchmark,
    first_there,
    is_val,
    read_annotation,
    summary,
)
from llava.eval.reading import (
    AnswersFile,
    read_answers,
    read_json,
    read_json_lines,
    read_text,
    require_fields,
)
from llava.eval.vqa_text import normalize_answer
from llava.eval.writing import write_text

_ALL_TEST_QUESTIONS = "llava_vqav2_mscoco_test2015.jsonl"
_VAL_QUESTIONS = ("v2_OpenEnded_mscoco_val2014_questions.json", "questions.json")


class Vqav2(HiddenTestBenchmark):
    """VQAv2 test-dev in the layout of LLaVA's eval.zip, or val in the two official files.

    Files of that format with the questions and answers of any part of val may be called `questions.json` and
    `annotations.json`.

    Keep in mind that LLaVA-1.5 was trained on COCO's train2017, which holds most images of val2014.
    """

    name = folder = "vqav2"
    published: Mapping[str, float] = {"llava-1.5-7b": 78.5, "dpn-llava-7b": 79.3}
    published_protocol = "vqav2-test-dev"
    submission = "vqav2_submission.json"
    test_split = "test-dev"
    test_questions = "llava_vqav2_mscoco_test-dev2015.jsonl"
    test_images = "test2015"
    val_annotations = ("v2_mscoco_val2014_annotations.json", "annotations.json")
    server = "EvalAI (challenge 830, phase test-dev)"

    def val_questions(self, folder: Path) -> list[Question]:
        """Read the official annotations, and the questions' words from the official question file."""
        path = first_there(folder, self.val_annotations)
        asked = first_there(folder, _VAL_QUESTIONS)
        annotated = _entries(path, "annotations")
        words = {}
        for number, entry in enumerate(_entries(asked, "questions"), start=1):
            where = f"{asked}: entry {number}"
            require_fields(entry, where, {"question_id": int, "question": str})
            words[entry["question_id"]] = entry["question"]
        questions = []
        for number, entry in enumerate(annotated, start=1):
            gold = read_annotation(path, number, entry, {"question_id": int, "image_id": int})
            if entry["question_id"] not in words:
                raise ValueError(
                    f"{asked}: no question {entry['question_id']}, which {path.name} has; "
                    "the two files must be of one release"
                )
            questions.append(
                Question(
                    id=entry["question_id"],
                    text=words[entry["question_id"]] + SHORT_ANSWER,
                    image=folder / "val2014" / f"COCO_val2014_{entry['image_id']:012d}.jpg",
                    gold=gold,
                )
            )
        return questions

    def read_answers(self, path: Path) -> AnswersFile:
        """Read an answers file, or a submission [{question_id, answer}], which is scored as it stands."""
        if not read_text(path, "answers").lstrip().startswith("["):
            return read_answers(path)
        entries = read_json(path, "a VQAv2 submission")
        if not entries:
            raise ValueError(f"{path}: no answers in it; expected [{{question_id, answer}}, ...]")
        for number, entry in enumerate(entries, start=1):
            is_whole = isinstance(entry, dict) and isinstance(entry.get("answer"), str)
            if not (is_whole and isinstance(entry.get("question_id"), str | int)):
                raise ValueError(
                    f"{path}: entry {number} has no question_id and answer; expected answers, one JSON "
                    "object per line, or a submission [{question_id, answer}, ...]"
                )
        own = {"prompt": "", "is_submission": True}
        rows = [{"question_id": entry["question_id"], "text": entry["answer"], **own} for entry in entries]
        return AnswersFile(path, rows)

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write [{question_id, answer}] for every question of test2015 ("" where none was asked), or of val.

        The server refuses a file that has only the questions of test-dev.
        """
        questions = self.references(root, answers)
        if is_val(questions):
            ids = [question.id for question in questions]
        else:
            path = root / self.folder / _ALL_TEST_QUESTIONS
            purpose = "the ids of all test2015 questions, which the server wants"
            ids = [line["question_id"] for line in read_json_lines(path, purpose, ("question_id",))]
        texts = {str(row["question_id"]): normalize_answer(row["text"]) for row in answers.rows}
        entries = [{"question_id": one, "answer": texts.get(str(one), "")} for one in ids]
        write_text(output, json.dumps(entries))
        return summary(texts, entries, answers)


def _entries(path: Path, key: str) -> list[Any]:
    content = read_json(path, f"VQAv2's official {key} of val2014")
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path}: expected an object with a list "{key}" of at least one entry')
    return entries

"""VizWiz: questions of blind people about their own photographs. Test is the server's; val is scored here."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path

from llava.eval.benchmark import Question, some
from llava.eval.benchmarks.hidden_test import HiddenTestBenchmark, read_annotation, summary
from llava.eval.reading import AnswersFile, read_json
from llava.eval.vqa_text import normalize_answer
from llava.eval.writing import write_text

SUFFIX = (
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    "\nAnswer the question using a single word or phrase."
)
"""What LLaVA-1.5 adds to a VizWiz question, byte for byte."""


class VizWiz(HiddenTestBenchmark):
    """VizWiz test in the layout of LLaVA's eval.zip, or val in the official file.

    LLaVA's ids of test are the numbers in the names of its images, each of which has one question. The ids of
    val are the names themselves; answers may give the number instead.
    """

    name = folder = "vizwiz"
    published: Mapping[str, float] = {"llava-1.5-7b": 50.0, "dpn-llava-7b": 51.7}
    published_protocol = "vizwiz-test"
    submission = "vizwiz_submission.json"
    test_split = "test"
    test_questions = "llava_test.jsonl"
    test_images = "test"
    val_annotations = ("val.json",)
    server = "EvalAI (challenge 2185)"

    def val_questions(self, folder: Path) -> list[Question]:
        """Read the official annotations, a list of {image, question, answers}."""
        path = folder / self.val_annotations[0]
        entries = read_json(path, "VizWiz's validation annotations")
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"{path}: expected a list of at least one annotated question")
        questions = []
        for number, entry in enumerate(entries, start=1):
            gold = read_annotation(path, number, entry, {"image": str, "question": str})
            questions.append(
                Question(
                    id=entry["image"],
                    text=entry["question"] + SUFFIX,
                    image=folder / "val" / entry["image"],
                    gold=gold,
                )
            )
        return questions

    def key(self, question_id: str | int, prompt: str) -> Hashable:
        """Give the name of an image of val, also for its number; test's numbers stay apart all the same."""
        name = str(question_id)
        return f"VizWiz_val_{int(name):08d}.jpg" if name.isdecimal() else name

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write [{image, answer}] in the order of the question file; every question must have an answer."""
        questions = self.references(root, answers)
        texts = {self.key(row["question_id"], ""): normalize_answer(row["text"]) for row in answers.rows}
        missing = [str(question.id) for question in questions if self.key(question.id, "") not in texts]
        if missing:
            raise ValueError(
                f"{answers.path}: {len(missing)} of {len(questions)} questions have no answer "
                f"({some(missing)}); the server takes complete submissions only"
            )
        entries = [{"image": Path(str(q.image)).name, "answer": texts[self.key(q.id, "")]} for q in questions]
        write_text(output, json.dumps(entries))
        return summary(texts, entries, answers)

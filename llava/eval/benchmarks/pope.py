"""POPE: is an object in the image? Yes or no, over three ways of choosing the absent objects."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmark import Answer, Benchmark, Question
from llava.eval.reading import extra_keys, read_json_lines, read_question_lines

_SPLITS = {"adversarial", "popular", "random"}


class Pope(Benchmark):
    """POPE in the layout of LLaVA's eval.zip; the reported number is the mean F1 of the splits."""

    name = folder = "pope"
    max_new_tokens = 128
    headline = "f1"
    published: Mapping[str, float] = {"llava-1.5-7b": 85.9, "dpn-llava-7b": 87.7}
    published_protocol = "pope_mean_f1"

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        """Say whether `f1` is the mean of all three splits, and of which ones where it isn't."""
        splits = {question.category for question in questions}
        return "pope_mean_f1" if splits == _SPLITS else "pope_f1_" + "_".join(sorted(splits))

    def questions(self, root: Path) -> list[Question]:
        """Read the question file and the label file of each split it names."""
        folder = root / self.folder
        path = folder / "llava_pope_test.jsonl"
        by_category: dict[str, list[dict[str, Any]]] = defaultdict(list)
        lines = read_question_lines(path)
        for line in lines:
            if "category" not in line:
                raise ValueError(f"{path}: question {line['question_id']} has no category (adversarial, ...)")
            by_category[line["category"]].append(line)
        gold = {category: _labels(folder, category, asked) for category, asked in by_category.items()}
        next_label = {category: iter(labels) for category, labels in gold.items()}
        return [
            Question(
                id=line["question_id"],
                text=line["text"],
                image=folder / "val2014" / line["image"],
                gold=next(next_label[line["category"]]),
                category=line["category"],
                extra=extra_keys(line),
            )
            for line in lines
        ]

    def gold_text(self, question: Question) -> str:
        return "yes" if question.gold else "no"

    def correctness(self, question: Question, answer: str) -> float:
        return float(says_yes(answer) == question.gold)

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score every split on its own; `f1` is the mean of their F1.

        An undefined ratio counts as 0, a missing answer as the wrong one.
        """
        splits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        for question, answer in zip(questions, answers, strict=True):
            said = not question.gold if answer.is_missing else says_yes(answer.text)
            splits[question.category].append((said, question.gold))
        metrics = {
            f"{split}/{name}": value
            for split, pairs in splits.items()
            for name, value in _measures(pairs).items()
        }
        f1 = [metrics[f"{split}/f1"] for split in splits]
        accuracy = [metrics[f"{split}/accuracy"] for split in splits]
        return {"f1": _ratio(sum(f1), len(f1)), "accuracy": _ratio(sum(accuracy), len(accuracy))} | metrics


def says_yes(answer: str) -> bool:
    """Read an answer as the original: no if its first sentence has the word `No`, `no` or `not`, else yes."""
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return not {"No", "no", "not"}.intersection(words)


def _measures(pairs: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Return F1, accuracy, precision, recall and share of yes, in percent, of (said yes, is yes) pairs."""
    hits = sum(said and truth for said, truth in pairs)
    said_yes = sum(said for said, _ in pairs)
    are_yes = sum(truth for _, truth in pairs)
    return {
        "f1": 100 * _ratio(2 * hits, said_yes + are_yes),
        "accuracy": 100 * _ratio(sum(said == truth for said, truth in pairs), len(pairs)),
        "precision": 100 * _ratio(hits, said_yes),
        "recall": 100 * _ratio(hits, are_yes),
        "yes_ratio": 100 * _ratio(said_yes, len(pairs)),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _labels(folder: Path, category: str, asked: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return the labels of one split in the order of its questions.

    The label files number their lines on their own, so lines are paired by position, and image and question
    are compared so that no label can slip. (The last word is not: a release of POPE spells it "imange?".)
    """
    path = folder / "coco" / f"coco_pope_{category}.json"
    labels = read_json_lines(path, f"POPE's labels of split {category}", ("image", "text", "label"))
    if len(labels) != len(asked):
        raise ValueError(f"{path}: {len(labels)} labels for the {len(asked)} questions of split {category}")
    for number, (label, line) in enumerate(zip(labels, asked, strict=True), start=1):
        same_question = line["text"].startswith(label["text"].rsplit(" ", 1)[0])
        if label["image"] != line["image"] or not same_question:
            raise ValueError(
                f"{path}: label {number} is about {label['image']} ({label['text']}), but question "
                f"{line['question_id']} in its place is about {line['image']} "
                f"({line['text'].splitlines()[0]}); both files must be in the same order"
            )
    return [label["label"] != "no" for label in labels]

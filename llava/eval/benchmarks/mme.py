"""MME: yes or no about an image, twice per image, in fourteen categories; scored in points."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from llava.eval.benchmark import (
    SHORT_ANSWER,
    Answer,
    Benchmark,
    Question,
    match_answers,
    percent,
    place_rows,
    some,
)
from llava.eval.reading import AnswersFile, MissingDataError, extra_keys, read_question_lines, read_text
from llava.eval.writing import write_text

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

_REMINDER = "Please answer yes or no."
_QUESTION_FILE = "llava_mme.jsonl"
_RELEASE = "MME_Benchmark_release_version"
_IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")
_LABEL_WIDTH = 4


class Gold(NamedTuple):
    """One line of the official answers."""

    category: str
    stem: str
    """Name of the image up to its first dot."""
    question: str
    """As the official file words it."""
    answer: str
    """`Yes` or `No`, as the official file spells it."""


class Mme(Benchmark):
    """MME in LLaVA's layout. Images have two questions each: the identity is (image, question)."""

    name = "mme"
    folder = "MME"
    headline = "perception"
    published: Mapping[str, float] = {"llava-1.5-7b": 1510.7, "dpn-llava-7b": 1469.0}
    published_protocol = "mme"
    submission = "mme_results"

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        return "mme"

    def questions(self, root: Path) -> list[Question]:
        """Read LLaVA's question file where there is one (it sets the order), else the official answers."""
        folder = root / self.folder
        official = self.references(root)
        path = folder / _QUESTION_FILE
        if not path.exists():
            return official
        golds = {self.key(question.id, question.text): question.gold for question in official}
        questions = []
        for line in read_question_lines(path):
            gold = golds.get(self.key(line["question_id"], line["text"]))
            if gold is None:
                raise ValueError(
                    f"{path}: question {line['question_id']} ({line['text']!r}) is not in {_RELEASE}; "
                    "the two must be of one release"
                )
            questions.append(
                Question(
                    id=line["question_id"],
                    text=line["text"],
                    image=folder / _RELEASE / line["image"],
                    gold=gold,
                    category=gold.category,
                    extra=extra_keys(line),
                )
            )
        return questions

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read the official answers of all fourteen categories."""
        release = root / self.folder / _RELEASE
        return [
            question for category in (*PERCEPTION, *COGNITION) for question in _category(release, category)
        ]

    def key(self, question_id: str | int, prompt: str) -> Hashable:
        path = str(question_id)
        return path.split("/", 1)[0], _stem(path.rsplit("/", 1)[-1]), _bare_question(prompt)

    def gold_text(self, question: Question) -> str:
        return question.gold.answer

    def correctness(self, question: Question, answer: str) -> float:
        return float(said(answer) == question.gold.answer.lower())

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score each category in points, at most 200, and both halves as sums.

        A category's points are the percentage of right answers plus that of images with no wrong answer.
        Categories without a question are left out.
        """
        images: dict[str, dict[str, list[float]]] = {}
        for question, answer in zip(questions, answers, strict=True):
            gold: Gold = question.gold
            scores = images.setdefault(gold.category, {}).setdefault(gold.stem, [])
            scores.append(self.correctness(question, answer.text))
        points = {category: _points(list(scores.values())) for category, scores in images.items()}
        return {
            "perception": sum((points.get(category, 0.0) for category in PERCEPTION), 0.0),
            "cognition": sum((points.get(category, 0.0) for category in COGNITION), 0.0),
            **points,
        }

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write `<category>.txt` for the official calculator into the folder `output`.

        Lines are in the order of the answers, the lines of one image together: the calculator takes them in
        pairs. A missing answer would shift the pairs, so it is an error.
        """
        questions = self.references(root, answers)
        matched = match_answers(self, questions, answers.rows)
        if matched.missing:
            raise ValueError(
                f"{answers.path}: {len(matched.missing)} question(s) without an answer "
                f"({some(matched.missing)}); the official calculator pairs lines by position and needs all"
            )
        lines: dict[str, dict[str, dict[int, str]]] = {}
        for position in place_rows(self, questions, answers.rows):
            if position is not None:
                gold: Gold = questions[position].gold
                prediction = _on_one_line(matched.answers[position].text)
                line = f"{gold.stem}.txt\t{gold.question}\t{gold.answer}\t{prediction}\n"
                lines.setdefault(gold.category, {}).setdefault(gold.stem, {})[position] = line
        output.mkdir(parents=True, exist_ok=True)
        for category, images in lines.items():
            text = "".join(line for image in images.values() for line in image.values())
            write_text(output / f"{category}.txt", text)
        return f"{output}: {len(lines)} files for MME's calculator (its --results_dir)"


def said(answer: str) -> str:
    """Read an answer as MME's calculator: `yes`, `no` or `other`, from its first four characters."""
    start = _on_one_line(answer).lower()[:_LABEL_WIDTH]
    return next((label for label in ("yes", "no") if label in start), "other")


def _points(images: Sequence[Sequence[float]]) -> float:
    """Return accuracy plus accuracy per image, both in percent, of the right answers of each image."""
    return percent([score for scores in images for score in scores]) + percent(
        [min(scores) for scores in images]
    )


def _on_one_line(answer: str) -> str:
    """Put spaces for what would break the official files' lines and columns, drop what no file can hold."""
    return answer.translate(str.maketrans("\t\r\n", "   ")).encode("utf-8", "ignore").decode("utf-8")


def _stem(name: str) -> str:
    return name.split(".", 1)[0]


def _bare_question(prompt: str) -> str:
    """Take off the instruction, in LLaVA's and in the official words."""
    return prompt.replace(SHORT_ANSWER.strip(), "").replace(_REMINDER, "").strip()


def _category(release: Path, category: str) -> list[Question]:
    """Read a category's answers: beside the images, or in a folder of their own beside `images/`."""
    folder = release / category
    nested = folder / "questions_answers_YN"
    is_nested = nested.is_dir()
    paths = sorted((nested if is_nested else folder).glob("*.txt"))
    if not paths:
        raise MissingDataError(
            f"{folder}: no official answers (*.txt); expected all fourteen categories of MME (see "
            "playground/README.md)"
        )
    images = folder / "images" if is_nested else folder
    return [question for path in paths for question in _answers_of_image(path, release, category, images)]


def _answers_of_image(path: Path, release: Path, category: str, images: Path) -> list[Question]:
    questions = []
    stem = _stem(path.name)
    candidates = [images / f"{path.stem}{suffix}" for suffix in _IMAGE_SUFFIXES]
    image = next((candidate for candidate in candidates if candidate.exists()), candidates[0])
    for number, line in enumerate(read_text(path, "MME's official answers").split("\n"), start=1):
        if not line.strip():
            continue
        question, separator, answer = line.strip().rpartition("\t")
        if not separator or answer.lower() not in ("yes", "no"):
            raise ValueError(f"{path}:{number}: {line!r}; expected a question, a tab, and Yes or No")
        questions.append(
            Question(
                id=str(image.relative_to(release)),
                text=_bare_question(question) + SHORT_ANSWER,
                image=image,
                gold=Gold(category, stem, question, answer),
                category=category,
            )
        )
    return questions

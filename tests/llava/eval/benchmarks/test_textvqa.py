import json

import pytest

from llava.eval.benchmark import Answer, match_answers
from llava.eval.benchmarks.textvqa import TextVqa, asked_question
from tests.llava.eval.conftest import SUFFIX, read_lines, write_lines
from tests.llava.eval.golden import expected

EXPECTED = expected("textvqa")


@pytest.fixture
def rows(data_root):
    return read_lines(data_root / "textvqa" / "answers" / "golden-model.jsonl")


def test_the_question_is_recovered_from_every_form_of_prompt(rows):
    parsed = [asked_question(row["prompt"]) for row in rows]
    assert parsed == [sample["parsed_question"] for sample in EXPECTED["per_sample"]]


def test_every_sample_scores_as_the_original(data_root, rows):
    textvqa = TextVqa()
    questions = textvqa.references(data_root)
    answers = match_answers(textvqa, questions, rows).answers
    scores = [textvqa.correctness(q, answer.text) for q, answer in zip(questions, answers, strict=True)]
    assert scores == pytest.approx([sample["score"] for sample in EXPECTED["per_sample"]], abs=1e-6)
    assert textvqa.score(questions, answers)["accuracy"] == pytest.approx(77.0, abs=1e-6)


def test_the_label_says_whether_ocr_tokens_were_given():
    with_tokens = f"What?\nReference OCR token: A{SUFFIX}"
    without = f"What?{SUFFIX}"
    assert TextVqa().protocol([], [with_tokens]) == "textvqa+ocr"
    assert TextVqa().protocol([], [without]) == "textvqa-noocr"
    assert TextVqa().protocol([], [with_tokens, without]) == "textvqa+some_ocr"


def test_asking_needs_the_question_file(data_root):
    with pytest.raises(ValueError, match=r"llava_textvqa_val_v051_ocr.jsonl: no such file"):
        TextVqa().questions(data_root)


def test_two_questions_about_one_image_are_told_apart(data_root, rows):
    asked = [row for row in rows if row["question_id"] == "img_a1"]
    lines = [{"question_id": row["question_id"], "image": "a.jpg", "text": row["prompt"]} for row in asked]
    write_lines(data_root / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl", lines)
    questions = TextVqa().questions(data_root)
    answers = match_answers(TextVqa(), questions, asked[::-1]).answers
    assert [answer.text for answer in answers] == ["Dakota", "Ten"]


def test_a_question_annotated_twice_has_the_last_answers_with_and_without_the_question_file(data_root):
    folder = data_root / "textvqa"
    entries = [
        {"image_id": "img", "question": question, "answers": [answer] * 10}
        for question, answer in (("Which?", "first"), ("WHICH?", "last"))
    ]
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": entries}))
    alone = [question.gold[0] for question in TextVqa().references(data_root)]
    lines = [{"question_id": "img", "image": "a.jpg", "text": f"Which?{SUFFIX}"}] * 2
    write_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", lines)
    listed = [question.gold[0] for question in TextVqa().references(data_root)]
    assert alone == listed == ["last", "last"]


def test_nine_annotators_are_refused(data_root):
    path = data_root / "textvqa" / "TextVQA_0.5.1_val.json"
    annotations = json.loads(path.read_text())
    annotations["data"][3]["answers"].pop()
    path.write_text(json.dumps(annotations))
    with pytest.raises(ValueError, match=r"entry 4 .* has 9 answers, expected 10"):
        TextVqa().references(data_root)


def test_a_prompt_of_another_benchmark_is_refused():
    with pytest.raises(ValueError, match="a TextVQA prompt of 1 lines"):
        asked_question("What is it?")


def test_the_benchmark_can_be_asked_without_ocr_tokens(data_root):
    text = "Price?\nReference OCR token: A, $5\nAnswer the question using a single word or phrase."
    without = TextVqa().of_split("noocr")
    assert without.questions(data_root)[0].text == f"What brand is shown?{SUFFIX}"
    write_lines(
        data_root / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl",
        [{"question_id": "img_a5", "image": "a.jpg", "text": text}],
    )
    assert TextVqa().questions(data_root)[0].text == text
    question = without.questions(data_root)[0]
    assert (question.text, question.image.name) == (f"Price?{SUFFIX}", "a.jpg")
    assert without.protocol([question], [question.text]) == "textvqa-noocr"
    with pytest.raises(ValueError, match="textvqa has no split 'val'; it is asked with ocr or noocr"):
        TextVqa().of_split("val")


@pytest.mark.parametrize(
    ("text", "message"),
    [("What?", "question img_a5: a TextVQA prompt of 1 lines"), ("Who?\nShort.", "img_a5 .Who.. is not in")],
)
def test_a_question_line_of_another_benchmark_is_refused(data_root, text, message):
    path = data_root / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl"
    write_lines(path, [{"question_id": "img_a5", "image": "a.jpg", "text": text}])
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        TextVqa().questions(data_root)


def test_a_missing_answer_is_wrong_even_where_nothing_is_the_right_answer(data_root):
    path = data_root / "textvqa" / "TextVQA_0.5.1_val.json"
    entry = {"image_id": "a", "question": "What?", "answers": ["the"] * 10}
    path.write_text(json.dumps({"data": [entry]}))
    questions = TextVqa().references(data_root)
    assert TextVqa().score(questions, [Answer()])["accuracy"] == 0.0
    assert TextVqa().score(questions, [Answer("", is_missing=False)])["accuracy"] == 100.0

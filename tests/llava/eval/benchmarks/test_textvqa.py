import json

import pytest

from llava.eval.benchmark import match_answers, read_answers
from llava.eval.benchmarks.textvqa import TextVqa, asked_question
from tests.llava.eval.conftest import GOLDEN, SUFFIX, write_lines

EXPECTED = json.loads((GOLDEN / "textvqa" / "expected.json").read_text())
ROWS = read_answers(GOLDEN / "textvqa" / "inputs" / "answers" / "golden-model.jsonl")


def test_the_question_is_recovered_from_every_form_of_prompt():
    parsed = [asked_question(row["prompt"]) for row in ROWS]
    assert parsed == [sample["parsed_question"] for sample in EXPECTED["per_sample"]]


def test_every_sample_scores_as_the_original(data_root):
    textvqa = TextVqa()
    questions = textvqa.references(data_root)
    texts = match_answers(textvqa, questions, ROWS).texts
    scores = [textvqa.correctness(q, text) for q, text in zip(questions, texts, strict=True)]
    assert scores == pytest.approx([sample["score"] for sample in EXPECTED["per_sample"]], abs=1e-6)
    assert textvqa.score(questions, texts)["accuracy"] == pytest.approx(100 * EXPECTED["accuracy"], abs=1e-6)


def test_the_label_says_whether_ocr_tokens_were_given():
    with_tokens = f"What?\nReference OCR token: A{SUFFIX}"
    without = f"What?{SUFFIX}"
    assert TextVqa().protocol([with_tokens]) == "textvqa+ocr"
    assert TextVqa().protocol([without]) == "textvqa-noocr"
    assert TextVqa().protocol([with_tokens, without]) == "textvqa+some_ocr"


def test_asking_needs_the_question_file(data_root):
    with pytest.raises(ValueError, match=r"llava_textvqa_val_v051_ocr.jsonl: no such file"):
        TextVqa().questions(data_root)


def test_two_questions_about_one_image_are_told_apart(data_root):
    asked = [row for row in ROWS if row["question_id"] == "img_a1"]
    lines = [{"question_id": row["question_id"], "image": "a.jpg", "text": row["prompt"]} for row in asked]
    write_lines(data_root / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl", lines)
    questions = TextVqa().questions(data_root)
    assert match_answers(TextVqa(), questions, asked[::-1]).texts == ["Dakota", "Ten"]


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

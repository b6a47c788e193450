"""Headlines recomputed from answer lines, against the scorers themselves on the originals' golden cases."""

import numpy as np
import pytest

from dpn.analysis.results import Result
from dpn.analysis.tally import NoTallyError, identities, tally
from llava.eval.benchmark import match_answers
from llava.eval.benchmarks import BENCHMARKS
from tests.llava.eval.golden import unpack

ANSWERS = {
    "pope": "pope/answers/golden-model.jsonl",
    "mme": "MME/answers/golden-model.jsonl",
    "scienceqa": "scienceqa/answers/golden-model.jsonl",
    "seed": "seed_bench/answers/golden-model/merge.jsonl",
    "textvqa": "textvqa/answers/golden-model.jsonl",
}


def golden_result(name, root):
    """Score a golden case and write its answers as `llava.eval` does, as far as tallies read them."""
    unpack(name, root / "textvqa" if name == "textvqa" else root)
    benchmark = BENCHMARKS[name]
    file = benchmark.read_answers(root / ANSWERS[name])
    questions = benchmark.references(root, file)
    matched = match_answers(benchmark, questions, file.rows)
    pairs = [pair for pair in zip(questions, matched.answers, strict=True) if not pair[1].is_missing]
    questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
    rows = [row_of(benchmark, question, answer) for question, answer in pairs]
    scores = {"headline": benchmark.headline, "metrics": benchmark.score(questions, answers)}
    return Result(scores=scores, answers=rows)


def row_of(benchmark, question, answer):
    kind = question.gold.get("data_type", "image") if isinstance(question.gold, dict) else "image"
    folder = {"image": "SEED-Bench-image", "video": "SEED-Bench-video-image"}[kind]
    return {
        "question_id": question.id,
        "prompt": answer.prompt,
        "score": benchmark.correctness(question, answer.text),
        "gold": benchmark.gold_text(question),
        "category": question.category,
        "image": f"{benchmark.folder}/{folder}/{question.id}",
    }


@pytest.mark.parametrize("name", ANSWERS)
def test_the_sums_give_the_scorers_headline(name, tmp_path):
    result = golden_result(name, tmp_path)
    found = tally(name, result)
    assert result.accuracy > 0
    assert found.headline(found.sums.sum(0)) == pytest.approx(result.accuracy)
    assert len(found.units) == len(found.sums) <= len(result.answers)


@pytest.mark.parametrize("name", ["pope", "mme"])
def test_a_headline_of_parts_is_computed_on_any_draw_of_them(name, tmp_path):
    """Drawing every unit twice changes nothing, and many draws are computed at once."""
    found = tally(name, golden_result(name, tmp_path))
    once = found.sums.sum(0)
    several = found.headline(np.stack([once, 2 * once, 3 * once]))
    assert several.shape == (3,)
    assert several == pytest.approx([found.headline(once)] * 3)
    assert found.headline(found.sums[: len(found.sums) // 2].sum(0)) != pytest.approx(several[0])


def result(rows, accuracy, **metrics):
    return Result(scores={"headline": "accuracy", "metrics": {"accuracy": accuracy, **metrics}}, answers=rows)


def line(question_id, score, **more):
    return {"question_id": question_id, "prompt": "p", "score": score, **more}


def test_the_order_of_the_file_is_not_seen():
    rows = [line(number, float(number % 3 == 0)) for number in range(12)]
    found, again = (tally("gqa", result(listed, 100 / 3)) for listed in (rows, rows[::-1]))
    assert found.units == again.units
    assert (found.sums == again.sums).all()


def test_an_mmbench_question_is_right_if_all_its_rotations_are():
    rows = [line(1, 1.0), line(2, 1.0), line(1_000_001, 1.0), line(1_000_002, 0.0)]
    found = tally("mmbench", result(rows, 50.0))
    assert found.units == (1, 2)
    assert found.is_share


def test_an_image_of_mme_is_one_unit(tmp_path):
    found = tally("mme", golden_result("mme", tmp_path))
    assert all(category in ("count", *dict(found.units)) for category, _ in found.units)
    assert len(set(found.units)) == len(found.units)
    assert not found.is_share


def test_soft_scores_are_no_shares():
    assert not tally("textvqa", result([line(1, 0.3), line(2, 1.0)], 65.0)).is_share
    assert tally("gqa", result([line(1, 0.0), line(2, 1.0)], 50.0)).is_share


def test_questions_that_agree_in_id_and_prompt_stay_apart():
    assert identities([line(7, 1), line(7, 0), line(8, 1)]) == [("7", "p", 1), ("7", "p", 2), ("8", "p", 1)]


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("mmvet", result([line(1, None)], 31.1), "no score per question"),
        ("gqa", result([], 50.0), "no score per question"),
        ("gqa", result([line(1, 1.0), line(2, 0.0)], 62.0), "give 50.00, scores.json says 62.00"),
        ("mmmu", result([line(1, 1.0)], 99.0, num_random_fallback=4), "4 letters were drawn"),
        ("pope", result([line(1, 1.0, gold="yes")], 100.0), "doesn't name POPE's splits"),
        ("pope", result([line(1, 1.0, category="random")], 100.0), "doesn't name POPE's splits"),
        ("mmbench", result([line("a1", 1.0)], 100.0), "has the question_id 'a1', not MMBench's"),
        ("mme", result([line("none/1.png", 1.0)], 100.0), "no question of MME's perception"),
        ("scienceqa", result([line(1, 1.0)], 100.0), "none of the answers .* counts for the headline"),
    ],
)
def test_answers_that_do_not_make_the_headline_are_refused(name, found, message):
    with pytest.raises(NoTallyError, match=message):
        tally(name, found)

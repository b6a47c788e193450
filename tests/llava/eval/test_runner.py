import json
import os
import signal
import sys
from dataclasses import replace

import pytest
import torch

from llava.eval.answers import AnswerFiles
from llava.eval.benchmark import NotScoredError
from llava.eval.ranks import Ranks
from llava.eval.report import build_scores
from llava.eval.runner import answer_all, answer_length
from tests.llava.eval.conftest import GOLDEN, read_lines

KEYS = json.loads((GOLDEN / "drivers" / "expected.json").read_text())["loader_greedy"]["key_order"]


def merged_texts(plan):
    return [row["text"] for row in plan.files.merge(plan.benchmark, plan.questions)]


def answer(plan, session, *placement):
    answer_all(plan, session, Ranks(*placement))
    return plan


def test_an_answer_line_starts_with_upstreams_keys_in_order(make_plan, session):
    plan = answer(make_plan(), session)
    row = plan.files.merge(plan.benchmark, plan.questions)[0]
    assert list(row)[: len(KEYS)] == KEYS
    assert (row["question_id"], row["metadata"], len(row["answer_id"])) == (1, {}, 22)
    assert row["text"] == row["text"].strip()
    assert row["image"] == "pope/val2014/COCO_val2014_000000000001.jpg"
    assert (row["grade"], row["gold"], row["route"]) == ("coarse", "yes", ["1x1", "2x2"])


def test_an_answer_line_says_what_the_answer_took(make_plan, session):
    plan = answer(make_plan(batch_size=4), session)
    rows = plan.files.merge(plan.benchmark, plan.questions)
    row = rows[0]
    assert (row["tokens_per_layer"], row["visual_tokens_per_layer"]) == ([70, 70, 22], [64, 64, 16])
    assert row["visual_grids"] == [[8, 8]]
    assert row["prompt_tokens"] == 1 + len(session.style.prompt(row["prompt"]).replace("<image>", ""))
    assert {row["text"]: row["answer_tokens"] for row in rows} == {"Yes": 3, "No.": 3}
    assert (row["flops"], row["flops_ratio"]) == ({"paper": 40, "full": 100}, {"paper": 0.4, "full": 0.5})
    timed = [row for row in rows if row["seconds"] is not None]
    assert len(timed) == len(rows) - 4  # the first batch is warm-up
    for row in timed:
        assert set(row["seconds_by_phase"]) == {"encode", "prefill", "decode"}
        assert sum(row["seconds_by_phase"].values()) == pytest.approx(row["seconds"], abs=3e-6)


def test_an_answers_length_counts_its_end_token_and_no_padding():
    assert answer_length([5, 6, 2, 0, 0], frozenset([2])) == 3
    assert answer_length([5, 6, 7], frozenset([2])) == 3
    assert answer_length([2, 2, 2], frozenset([2, 9])) == 1


def test_questions_without_an_image_are_asked_apart(make_plan, session):
    plan = make_plan(batch_size=4)
    plan.questions[1] = replace(plan.questions[1], image=None)
    plan.questions[4] = replace(plan.questions[4], image=None)
    answer(plan, session)  # EchoModel refuses batches of both kinds
    rows = plan.files.merge(plan.benchmark, plan.questions)
    assert [number for number, row in enumerate(rows) if row["image"] is None] == [1, 4]
    assert len(rows) == len(plan.questions)


def test_images_inside_the_question_file_are_opened(make_plan, session):
    plan = make_plan()
    plan.questions[0] = replace(plan.questions[0], image=plan.questions[0].image.read_bytes())
    answer(plan, session)
    assert plan.files.merge(plan.benchmark, plan.questions)[0]["image"] is None


def test_a_question_with_an_image_token_of_its_own_is_refused(make_plan, session):
    plan = make_plan()
    plan.questions[2] = replace(plan.questions[2], text="What is <image>?")
    with pytest.raises(ValueError, match=r"question 3: its text holds <image>"):
        answer(plan, session)


def test_answers_do_not_depend_on_the_batch_size(make_plan, session):
    texts = {
        size: merged_texts(answer(make_plan("gqa", batch_size=size, run=f"{size}"), session))
        for size in (1, 3, 64)
    }
    assert texts[1] == texts[3] == texts[64]
    assert {"Yes", "No."} == set(texts[1])


def test_images_may_be_decoded_in_worker_processes(make_plan, session):
    plan = answer(make_plan(num_workers=2), session)
    assert len(merged_texts(plan)) == len(plan.questions)


def test_greedy_is_asked_for_without_sampling_keywords(make_plan, session):
    answer(make_plan(), session)
    assert session.model.keywords == {"max_new_tokens": 8}


@pytest.mark.parametrize("world", [2, 40])
def test_ranks_share_the_questions_even_when_there_are_more_ranks(make_plan, session, world):
    for rank in range(world):
        plan = answer(make_plan(rank=rank), session, rank, world)
    first = make_plan()
    assert len(session.model.asked) == len(first.questions)
    rows = first.files.merge(first.benchmark, first.questions)
    assert [row["question_id"] for row in rows] == [question.id for question in plan.questions]
    assert first.files.parts() == []


def test_a_killed_run_resumes_without_losing_or_repeating_an_answer(make_plan, session):
    plan = make_plan(batch_size=2)
    session.model.fails_after = 6
    with pytest.raises(RuntimeError):
        answer(plan, session)
    with plan.files.own.open("a") as file:
        file.write('{"question_id": 5, "prom')
    session.model.fails_after = None
    answer(make_plan(batch_size=2), session)
    assert len(session.model.asked) == len(plan.questions)
    assert len(merged_texts(plan)) == len(plan.questions)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_run_that_was_killed_by_the_system_resumes(make_plan, session):
    plan = make_plan(batch_size=2)
    child = os.fork()
    if child == 0:  # the child answers six questions and is killed in the middle of writing the next ones
        whole, append = [], plan.files.append

        def write_half(rows):
            if len(whole) == 3:
                with plan.files.own.open("a") as file:
                    file.write(json.dumps(rows[0])[:40])
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
            whole.append(rows)
            append(rows)

        class Files(AnswerFiles):
            def append(self, rows):
                write_half(rows)

        answer(plan._replace(files=Files(*plan.files)), session)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not plan.files.own.read_text().endswith("\n")
    plan.files.repair()
    before = read_lines(plan.files.own)
    assert len(before) == 6
    answer(make_plan(batch_size=2), session)
    rows = plan.files.merge(plan.benchmark, plan.questions)
    assert len(session.model.asked) == len(rows) - 6 == len(plan.questions) - 6
    kept = {row["question_id"]: row["answer_id"] for row in before}
    assert kept.items() <= {row["question_id"]: row["answer_id"] for row in rows}.items()


def test_a_killed_image_process_ends_the_run_with_its_question(make_plan, session):
    def kill(images, return_tensors):
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("no worker process")

    kill.image_mean = (0.5, 0.5, 0.5)
    plan = make_plan(batch_size=1, num_workers=1)
    with pytest.raises(ValueError, match=r"question \d+: the process that decodes its image failed"):
        answer(plan, replace(session, image_processor=kill))


def test_too_little_memory_ends_with_the_question_and_advice(make_plan, session, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(session.model, "generate_with_report", fail)
    with pytest.raises(ValueError, match=r"pope, question .*: out of memory .* smaller --batch_size"):
        answer(make_plan(), session)


def test_a_finished_run_asks_nothing_again(make_plan, session):
    plan = answer(make_plan(), session)
    before = merged_texts(plan)
    session.model.fails_after = 0
    assert merged_texts(answer(make_plan(), session)) == before


def test_the_number_of_ranks_may_change_on_resuming(make_plan, session):
    make_plan(rank=0)
    answer(make_plan(rank=3), session, 3, 4)
    asked_before = len(session.model.asked)
    plan = answer(make_plan(), session)
    assert 0 < asked_before < len(session.model.asked) == len(plan.questions)


def test_a_failing_batch_names_its_questions(make_plan, session):
    session.model.fails_after = 0
    with pytest.raises(RuntimeError) as failure:
        answer(make_plan(batch_size=1), session)
    assert "while answering pope, question" in failure.value.__notes__[0]


def test_a_folder_with_answers_of_another_checkpoint_is_refused(make_plan, session):
    plan = answer(make_plan(), session)
    with pytest.raises(ValueError, match=r"answers of another run .model was 'echo', is 'other'"):
        plan.files.claim({"model": "other"})


def test_a_folder_without_any_answer_may_change_its_settings(make_plan):
    files = make_plan().files
    files.claim({"model": "other"})
    assert json.loads((files.folder / "run.json").read_text()) == {"model": "other"}


def test_answers_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"question_id": 1}\n')
    with pytest.raises(ValueError, match=r"no run.json that says how they were made"):
        AnswerFiles(tmp_path, 0).claim({"model": "echo"})


def test_a_broken_line_in_the_middle_is_an_error_not_a_torn_end(make_plan):
    files = make_plan().files
    files.own.write_text('{"a": 1}\nbroken\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"rank0.jsonl:2: not a line of answers"):
        files.read()


def test_scores_hold_label_metrics_cost_and_how_they_were_measured(make_plan, session):
    plan = make_plan(batch_size=4)
    plan.files.claim({"checkpoint": "0123"})
    answer(plan, session)
    rows = plan.files.merge(plan.benchmark, plan.questions)
    scores = build_scores(plan, session, rows, "+first_3")
    assert scores["protocol"] == "pope_mean_f1+first_3"
    assert scores["flops_ratio"] == pytest.approx({"paper": 0.4, "full": 0.5})
    assert scores["gflops"] == pytest.approx({"paper": 40e-9, "full": 100e-9})
    assert scores["visual_tokens"] == pytest.approx(48)
    assert scores["tokens"] == pytest.approx(54)
    assert scores["answer_tokens"] == 3
    assert scores["prompt_tokens"] == pytest.approx(sum(row["prompt_tokens"] for row in rows) / len(rows))
    assert sum(scores["seconds_by_phase"].values()) == pytest.approx(scores["seconds_per_sample"], abs=3e-6)
    assert scores["checkpoint"] == "0123"
    assert {"device", "dtype", "batch_size", "versions", "model_id", "reduction"} <= scores.keys()
    assert scores["seconds_per_sample"] > 0
    assert scores["timing"]["questions_timed"] == len(plan.questions) - 4
    assert set(scores["by_grade"]) == {"coarse", "fine"}
    coarse = scores["by_grade"]["coarse"]
    judged = [row["score"] for row in rows if row["grade"] == "coarse"]
    assert coarse["num_questions"] == len(judged)
    assert coarse["accuracy"] == pytest.approx(100 * sum(judged) / len(judged))


def test_part_files_are_written_batch_by_batch(make_plan, session):
    plan = make_plan(batch_size=2)
    session.model.fails_after = 4
    with pytest.raises(RuntimeError):
        answer(plan, session)
    assert len(read_lines(plan.files.own)) == 4


def test_what_cannot_be_scored_here_has_a_reason_in_place_of_metrics(make_plan, session, monkeypatch):
    def refuse(*_):
        raise NotScoredError("ask the server")

    plan = answer(make_plan(), session)
    rows = plan.files.merge(plan.benchmark, plan.questions)
    monkeypatch.setattr(type(plan.benchmark), "score", refuse)
    scores = build_scores(plan, session, rows, "")
    assert (scores["metrics"], scores["not_scored"]) == ({}, "ask the server")
    assert (scores["protocol"], scores["num_questions"]) == ("pope_mean_f1", len(plan.questions))
    assert scores["flops_ratio"] == pytest.approx({"paper": 0.4, "full": 0.5})

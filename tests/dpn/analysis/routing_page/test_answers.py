import json

import pytest

from dpn.analysis.routing_page.answers import read_sources
from tests.dpn.analysis.routing_page.conftest import SCORES, make_row

UNROUTED = {"route": [], "probabilities": [], "visual_grids": [], "visual_tokens_per_layer": [0] * 8}


def test_a_run_is_read_with_what_its_scores_say(write_answers):
    path = write_answers([make_row(), make_row(1, image=None, **UNROUTED)])
    (source,) = read_sources([str(path)])
    assert (source.run, source.benchmark, source.protocol) == ("policy", "gqa", "gqa_testdev_balanced")
    assert (source.layers, source.kernels) == ([2, 4, 6], ["1x1", "1x2", "2x2"])
    assert (source.aspect_ratio, source.choice) == ("pad", "argmax")
    assert (len(source.rows), source.unrouted) == (1, 1)


def test_a_folder_stands_for_the_answers_in_it(write_answers, tmp_path):
    write_answers([make_row()], benchmark="gqa")
    write_answers([make_row()], benchmark="pope")
    run = tmp_path / "results" / "policy"
    assert [source.benchmark for source in read_sources([str(run)])] == ["gqa", "pope"]
    assert [source.benchmark for source in read_sources([str(run / "pope")])] == ["pope"]


def test_name_equals_path_names_the_run(write_answers):
    path = write_answers([make_row()])
    assert read_sources([f"my run={path}"])[0].run == "my run"


def test_a_path_with_an_equals_sign_is_a_path(write_answers):
    path = write_answers([make_row()], run="lr=1")
    assert read_sources([str(path)])[0].run == "lr=1"


def test_without_scores_nothing_is_made_up(write_answers):
    (source,) = read_sources([str(write_answers([make_row()], scores=None))])
    assert (source.benchmark, source.layers, source.kernels) == ("gqa", [], [])
    assert source.aspect_ratio is source.protocol is source.choice is None


def test_scores_of_another_reduction_say_what_they_know(write_answers):
    scores = SCORES | {"reduction": {"method": "other", "kernels": "2x2", "layers": None}}
    (source,) = read_sources([str(write_answers([make_row()], scores=scores))])
    assert (source.layers, source.kernels) == ([], [])


def test_answers_of_a_dense_run_are_refused(write_answers):
    path = write_answers([make_row(number, **UNROUTED) for number in range(3)])
    with pytest.raises(ValueError, match=r"none of its 3 answers has a route.*dense model"):
        read_sources([str(path)])


def test_upstreams_answers_are_refused_as_they_have_no_routes(write_answers):
    path = write_answers([{"question_id": 1, "prompt": "What?", "text": "5", "metadata": {}}])
    with pytest.raises(ValueError, match="none of its 1 answers has a route"):
        read_sources([str(path)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", r"answers.jsonl, line 2: not valid JSON"),
        ("[1, 2]", r"answers.jsonl, line 2: a list, expected an object; give an answers.jsonl"),
        ('{"question_id": 1, "text": "a"}', r"answers.jsonl, line 2: no prompt"),
        (make_row(score="good"), r"answers.jsonl, line 2: score is 'good', expected a number or null"),
        (make_row(score=float("nan")), r"answers.jsonl, line 2: score is nan, expected a number or null"),
        (make_row(route=["<b>"]), r"answers.jsonl, line 2: route is \['<b>'\], expected kernels"),
        (make_row(route=["0x2", "1x1", "1x1"]), r"answers.jsonl, line 2: route is"),
        (
            make_row(probabilities=[[0.5, 0.5]]),
            r"answers.jsonl, line 2: probabilities of 1 DPEs, but a route",
        ),
        (make_row(visual_grids=[[8]]), r"answers.jsonl, line 2: visual_grids is \[\[8\]\], expected \[rows"),
        (make_row(visual_tokens_per_layer=[]), r"answers.jsonl, line 2: visual_tokens_per_layer is \[\]"),
        (make_row(flops_ratio={"paper": None}), r"answers.jsonl, line 2: flops_ratio is"),
        (make_row(image=3), r"answers.jsonl, line 2: image is 3, expected a path or null"),
    ],
)
def test_a_line_that_is_no_answer_is_named(write_answers, line, message):
    path = write_answers([make_row(), line])
    with pytest.raises(ValueError, match=message):
        read_sources([str(path)])


def test_what_is_no_file_of_answers_is_named(tmp_path, write_answers):
    with pytest.raises(ValueError, match=r"nowhere.jsonl: no such file or folder"):
        read_sources([str(tmp_path / "nowhere.jsonl")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: neither answers.jsonl nor <benchmark>/answers.jsonl"):
        read_sources([str(tmp_path / "empty")])
    with pytest.raises(ValueError, match=r"answers.jsonl: empty"):
        read_sources([str(write_answers([]))])
    path = write_answers([])
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"answers.jsonl: not UTF-8 text"):
        read_sources([str(path)])


def test_scores_that_cant_be_read_are_named(write_answers):
    path = write_answers([make_row()])
    path.with_name("scores.json").write_text("{")
    with pytest.raises(ValueError, match=r"scores.json: not valid JSON"):
        read_sources([str(path)])
    path.with_name("scores.json").write_text(json.dumps([1]))
    with pytest.raises(
        ValueError, match=r"scores.json: a list, expected an object; evaluate it again, or move"
    ):
        read_sources([str(path)])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_aspect_ratio", "weird", "is 'weird', expected pad, square, anyres or null"),
        ("image_aspect_ratio", ["pad"], r"is \['pad'\], expected pad, square, anyres or null"),
        ("protocol", 5, "is 5, expected a string or null"),
        ("reduction", "dpn", "is 'dpn', expected an object or null"),
    ],
)
def test_scores_that_the_page_can_not_show_are_named(write_answers, key, value, message):
    path = write_answers([make_row()], scores=SCORES | {key: value})
    with pytest.raises(ValueError, match=f"scores.json: {key} {message}"):
        read_sources([str(path)])


def test_two_files_of_one_run_and_benchmark_are_refused(write_answers):
    path = write_answers([make_row()])
    with pytest.raises(ValueError, match="are both gqa of a run called 'policy'"):
        read_sources([str(path), str(path)])
    assert len(read_sources([str(path), f"again={path}"])) == 2

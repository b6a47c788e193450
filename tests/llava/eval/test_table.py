import json

import pytest

from llava.eval.benchmarks import BENCHMARKS
from llava.eval.table import AVERAGED, main, read_run, render


@pytest.fixture
def make_run(tmp_path):
    """A run folder; arguments are name=(protocol, score), a score of None was not to be had."""

    def make(**results):
        for name, (protocol, score) in results.items():
            headline = BENCHMARKS[name].headline
            scores = {
                "protocol": protocol,
                "headline": headline,
                "metrics": {} if score is None else {headline: score},
                "not_scored": "ask the judge",
                "visual_tokens": 21.25,
                "seconds_per_sample": None,
                "flops_ratio": {"paper": 0.4, "full": 0.5},
            }
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "scores.json").write_text(json.dumps(scores))
        return tmp_path

    return make


def test_published_values_stand_beside_a_score_of_their_protocol(make_run):
    text = render(read_run(make_run(gqa=("gqa_testdev_balanced", 61.5))))
    row = "| gqa | gqa_testdev_balanced | accuracy | 61.50 | 62 | 63.2 | 40.0 % | 50.0 % | 21.2 | - |"
    assert row in text
    assert text.count("| gqa |") == 1


def test_published_values_of_another_protocol_stand_in_their_own_row(make_run):
    text = render(read_run(make_run(vqav2=("vqav2-val", 70.0))))
    assert "| vqav2 | vqav2-val | accuracy | 70.00 | - | - |" in text
    assert "| vqav2 | vqav2-test-dev | accuracy | - | 78.5 | 79.3 |" in text


def test_a_smoke_run_is_never_beside_published_values(make_run):
    text = render(read_run(make_run(gqa=("gqa_testdev_balanced+first_5", 80.0))))
    assert "| gqa | gqa_testdev_balanced+first_5 | accuracy | 80.00 | - | - |" in text


def test_without_all_eight_there_is_no_average_but_a_reason(make_run):
    text = render(read_run(make_run(gqa=("gqa_testdev_balanced", 61.5), vqav2=("vqav2-val", 70.0))))
    assert "no average: it is over gqa, scienceqa, textvqa, vqav2, mmvet, mmbench, pope, mme / 20" in text
    assert "not so here: scienceqa, textvqa, vqav2, mme, mmvet, mmbench, pope" in text


def test_the_average_is_the_papers_with_a_twentieth_of_mme(make_run):
    results = {name: (BENCHMARKS[name].published_protocol, 50.0) for name in AVERAGED}
    text = render(read_run(make_run(**(results | {"mme": ("mme", 1500.0)}))))
    assert f": {(7 * 50 + 75) / 8:.2f} (LLaVA-1.5-7B " in text


def test_what_could_not_be_scored_says_how_to_get_a_score(make_run):
    assert "* mmvet: ask the judge" in render(read_run(make_run(mmvet=("mmvet-ungraded", None))))


def test_a_folder_without_scores_ends_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^llava\.eval\.table: .*no <benchmark>/scores\.json"):
        main([str(tmp_path)])


def test_a_broken_scores_file_is_named(make_run):
    folder = make_run(gqa=("gqa_testdev_balanced", 61.5))
    (folder / "gqa" / "scores.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"gqa/scores\.json: not a scores\.json of llava\.eval"):
        main([str(folder)])

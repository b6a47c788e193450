"""A study's estimates against numbers worked out by hand."""

import json
import math
import random
import shutil

import pytest

from dpn.analysis.study import chance_information, load_study, main, mutual_information, summarise

SAME = {grade: [["2x2", "1x1", "1x1"]] for grade in ("coarse", "medium", "fine")}
BY_GRADE = {
    "coarse": [["2x2", "2x2", "2x2"]],
    "medium": [["1x2", "1x2", "1x2"]],
    "fine": [["1x1", "1x1", "1x1"]],
}


@pytest.mark.parametrize(
    ("pairs", "bits"),
    [
        ([("a", 1), ("b", 2), ("c", 3), ("d", 4)], 2.0),
        ([("a", 1), ("b", 1)], 0.0),
        ([("a", 1), ("a", 2), ("b", 1), ("b", 2)], 0.0),
        # p(a)=1/2, p(1)=3/4: 1/2 log2(4/3) + 1/4 log2(2/3) + 1/4 log2 2
        (
            [("a", 1), ("a", 1), ("b", 1), ("b", 2)],
            0.5 * math.log2(4 / 3) + 0.25 * math.log2(2 / 3) + 0.25,
        ),
    ],
)
def test_mutual_information_by_hand(pairs, bits):
    assert mutual_information(pairs) == pytest.approx(bits)


def test_chance_is_what_independent_routes_carry_on_average():
    draw = random.Random(0)
    found = [
        mutual_information([(draw.randrange(6), draw.randrange(27)) for _ in range(9000)]) for _ in range(20)
    ]
    assert sum(found) / 20 == pytest.approx(chance_information(9000, groups=6), rel=0.05)


def test_chance_counts_the_groups_that_the_questions_have(make_study):
    (row,) = summarise(load_study(make_study(dense=[{"routes": BY_GRADE}])))
    assert row["chance"]["grade"] == chance_information(row["questions"], groups=3)


def test_a_point_is_the_mean_over_its_seeds(make_study):
    study = make_study(policy=[{"accuracy": 0.8, "routes": BY_GRADE}, {"accuracy": 0.9, "routes": SAME}])
    (row,) = summarise(load_study(study))
    assert row["values"]["accuracy"] == pytest.approx([80.0, 90.0])
    assert row["estimates"]["accuracy"]["mean"] == pytest.approx(85.0)
    assert row["estimates"]["accuracy"]["half_width"] == pytest.approx(12.706 * math.sqrt(50) / math.sqrt(2))
    assert row["values"]["information_grade"] == pytest.approx([math.log2(3), 0.0])
    assert row["seeds"] == ["seed0", "seed1"]


def test_points_of_one_method_share_its_name(make_study):
    study = make_study(**{"value@0.1": [{"routes": BY_GRADE}], "value@1": [{"routes": SAME}], "dense": [{}]})
    assert {row["point"]: row["method"] for row in summarise(load_study(study))} == {
        "dense": "dense",
        "value@0.1": "value",
        "value@1": "value",
    }


def test_a_run_that_is_not_evaluated_whole_is_left_out(make_study):
    study = make_study(dense=[{}, {}])
    shutil.rmtree(study / "runs" / "dense" / "seed1" / "points" / "dense" / "pope")
    (row,) = summarise(load_study(study))
    assert row["seeds"] == ["seed0"]


def test_table_plot_and_json_are_written(make_study, tmp_path, capsys):
    study = make_study(
        **{
            "dense": [{}, {}],
            "policy": [{"routes": BY_GRADE, "accuracy": 0.85}, {"routes": BY_GRADE}],
            "value@0.1": [{"routes": SAME}],
            "value@1": [{"routes": {key: [["2x2", "2x2", "2x2"]] for key in SAME}}],
        }
    )
    main([str(study), "--output", str(tmp_path / "out")])
    table = (tmp_path / "out" / "routing_table.md").read_text()
    assert [line.split(" |")[0] for line in table.split("\n")[2:5]] == ["| dense", "| policy", "| value@0.1"]
    assert "± " in table
    assert capsys.readouterr().out.startswith(table)
    assert len(json.loads((tmp_path / "out" / "routing.json").read_text())["points"]) == 4
    assert (tmp_path / "out" / "routing.png").stat().st_size > 10_000


def test_an_empty_study_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no evaluated run"):
        main([str(tmp_path)])


def test_a_part_of_the_methods_can_be_shown_and_unknown_ones_are_refused(make_study, tmp_path, capsys):
    study = make_study(**{"value@0.1": [{"routes": BY_GRADE}], "value@1": [{"routes": SAME}], "dense": [{}]})
    main([str(study), "--output", str(tmp_path / "out"), "--methods", "value"])
    shown = json.loads((tmp_path / "out" / "routing.json").read_text())["points"]
    assert [row["point"] for row in shown] == ["value@0.1", "value@1"]
    with pytest.raises(SystemExit, match=r"--methods vaule: not in the study; it has dense, value"):
        main([str(study), "--methods", "vaule"])

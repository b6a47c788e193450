"""Rows that a user fills: which folders they take, what is measured and tested, and what is refused."""

import pytest

from dpn.analysis.arms import compare, compare_averages, load_arms
from dpn.analysis.resampling import Draws
from tests.dpn.analysis.scored import write_result, write_run

DRAWS = Draws(samples=400)
HALF = [1, 0] * 20


def arm(root, name, *seeds, **changes):
    """Write one folder per seed (benchmark -> scores) and read them as one row."""
    folders = [write_run(root / name / f"seed{n}", marks, **changes) for n, marks in enumerate(seeds)]
    (found,) = load_arms([f"{name}={','.join(folders)}"])
    return found


def test_a_rows_folders_are_its_seeds_and_a_pattern_takes_them_in_their_order(tmp_path):
    for seed in (10, 9, 2):
        write_run(tmp_path / f"seed{seed}" / "points" / "dpn", {"gqa": [1] * seed + [0]})
    (found,) = load_arms([f"dpn={tmp_path}/seed*/points/dpn"], ["dpn"])
    assert [len(run.answers) for run in found.runs] == [3, 10, 11]


def test_a_score_is_the_mean_over_seeds_and_its_interval_covers_them(tmp_path):
    found = arm(tmp_path, "dpn", {"gqa": HALF}, {"gqa": [1, 1, 1, 0] * 10}).score("gqa", DRAWS)
    assert (found.value, found.num_questions, found.reason) == (62.5, 40, "")
    assert found.interval.low < 50
    assert found.interval.high > 75


def test_a_headline_that_the_answers_do_not_give_has_no_interval_and_says_why(tmp_path):
    found = arm(tmp_path, "dpn", {"mmmu": HALF}, headline=48.0).score("mmmu", DRAWS)
    assert (found.value, found.interval) == (48.0, None)
    assert found.reason == "the scores in answers.jsonl give 50.00, scores.json says 48.00"


def test_one_seed_each_is_tested_by_mcnemar_on_the_questions_only_one_of_them_got(tmp_path):
    ours = arm(tmp_path, "ours", {"gqa": [1] * 9 + [0] * 3})
    other = arm(tmp_path, "other", {"gqa": [1] * 4 + [0] * 8})
    found = compare(ours, other, "gqa", DRAWS)
    assert found.value == pytest.approx(100 * 5 / 12)
    assert found.test == ("McNemar", pytest.approx(2 / 2**5))
    assert found.interval.low < found.value < found.interval.high


def test_several_seeds_are_tested_by_a_bootstrap_in_which_shared_questions_cancel(tmp_path):
    better = [1] * 28 + [0] * 12
    ours = arm(tmp_path, "ours", {"gqa": better}, {"gqa": better})
    other = arm(tmp_path, "other", {"gqa": [1] * 20 + [0] * 20}, {"gqa": [1] * 20 + [0] * 20})
    found = compare(ours, other, "gqa", DRAWS)
    assert (found.value, found.test.name) == (20.0, "paired bootstrap")
    assert found.interval.low > 0
    assert found.test.p == pytest.approx(2 / 401)
    same = compare(other, other, "gqa", DRAWS)
    assert (same.value, same.interval, same.test.p) == (0.0, (0.0, 0.0), 1.0)


def test_rows_that_answered_other_questions_are_not_tested(tmp_path):
    ours, other = arm(tmp_path, "ours", {"gqa": HALF}), arm(tmp_path, "other", {"gqa": HALF}, first=1)
    found = compare(ours, other, "gqa", DRAWS)
    assert (found.interval, found.test) == (None, None)
    assert found.reason == "not available: they answered other questions"
    averages = compare_averages(ours, other, ["gqa"], DRAWS)
    assert averages.reason == "gqa: not available: they answered other questions"


def test_the_same_questions_in_another_order_are_paired_by_their_ids(tmp_path):
    """Right on questions 0 to 8 against 0 to 3: only the first gets five, in whatever order they lie."""
    ours = arm(tmp_path, "ours", {"gqa": [1] * 9 + [0] * 3})
    arm(tmp_path, "other", {"gqa": [1] * 4 + [0] * 8})
    path = tmp_path / "other" / "seed0" / "gqa" / "answers.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    (other,) = load_arms([f"other={tmp_path}/other/seed0"])
    found = compare(ours, other, "gqa", DRAWS)
    assert found.test == ("McNemar", pytest.approx(2 / 2**5))
    assert compare_averages(ours, other, ["gqa"], DRAWS).test is not None


def test_seeds_may_differ_in_the_seed_of_a_methods_draws(tmp_path):
    for seed in (0, 1):
        reduction = {"method": "random", "layers": [2], "seed": seed}
        write_run(tmp_path / f"s{seed}", {"gqa": HALF}, reduction=reduction)
    (found,) = load_arms([f"random={tmp_path}/s*"])
    assert len(found.runs) == 2


def test_points_of_mme_count_a_twentieth_in_averages(tmp_path):
    """One category, all right: 200 points of perception, which are 10 percent."""
    folder = write_run(tmp_path / "a", {"gqa": HALF})
    write_result(tmp_path / "a", "mme", [1.0, 1.0], headline=200.0)
    path = tmp_path / "a" / "mme" / "answers.jsonl"  # both questions are about one image
    path.write_text(path.read_text().replace('"0"', '"count/1.png"').replace('"1"', '"count/1.png"'))
    (found,) = load_arms([f"dpn={folder}"])
    assert found.average(["gqa", "mme"]) == pytest.approx((50 + 200 / 20) / 2)
    replicates = found.averages(["gqa", "mme"], DRAWS)
    assert replicates.shape == (400,)
    assert replicates.mean() == pytest.approx(30, abs=1)


def test_a_cost_is_the_mean_over_seeds_and_missing_where_one_lacks_it(tmp_path):
    folders = [write_run(tmp_path / str(n), {"gqa": HALF}, flops=n / 10) for n in (3, 5)]
    (found,) = load_arms([f"dpn={','.join(folders)}"])
    assert found.mean_cost("gqa", ("flops_ratio", "paper")) == pytest.approx(0.4)
    assert found.mean_cost("gqa", ("flops_ratio", "measured")) is None


@pytest.fixture
def runs(tmp_path):
    """Folders `a`, `b` on GQA, `c` on more, `d` under another protocol, `routed` and `dearer` of routers."""
    for name in "ab":
        write_run(tmp_path / name, {"gqa": HALF})
    write_run(tmp_path / "c", {"gqa": HALF, "textvqa": HALF})
    write_run(tmp_path / "d", {"gqa": HALF}, protocol="gqa_testdev_all")
    routed = {"method": "dpn", "layers": [2, 4], "mu": 0.5}
    write_run(tmp_path / "routed", {"gqa": HALF}, reduction=routed)
    write_run(tmp_path / "dearer", {"gqa": HALF}, reduction=routed | {"mu": 1.0, "kernels": [[1, 1]]})
    (tmp_path / "link").symlink_to(tmp_path / "a")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dpn"], r"--runs takes ROW=FOLDER\[,FOLDER...\], got 'dpn'"),
        (["dpn="], r"--runs takes ROW=FOLDER"),
        (["dqn={}/a"], r"no row 'dqn' to fill; there are llava, dpn. For a row of your own write \+dqn="),
        (["+dpn={}/a"], r"'dpn' is a row of the table: leave out the '\+'"),
        (["dpn={}/a", "dpn={}/b"], r"row 'dpn' is given twice; put all its folders into one"),
        (["dpn={}/seed*/x"], r"seed\*/x: no such folder"),
        (["dpn={}/e"], r"/e: no <benchmark>/scores.json in it"),
        (["dpn={0}/a,{0}/c"], r"row 'dpn': .*/c has gqa, textvqa, .*/a has gqa; evaluate every seed"),
        (
            ["llava={}/a", "+mine={}/d"],
            r"gqa: row 'llava' was scored as gqa_testdev_balanced, row 'mine' as gqa_testdev_all",
        ),
        (["dpn={0}/a,{0}/d"], r"gqa: row 'dpn' was scored as gqa_testdev_balanced, row 'dpn' as gqa_"),
        (["dpn={0}/a,"], r"--runs takes ROW=FOLDER\[,FOLDER...\], got"),
        (["dpn={0}/a,{0}/b,{0}/a"], r"row 'dpn': \S+/a is given twice; a folder is one seed"),
        (["dpn={0}/a,{0}/c/../a"], r"row 'dpn': \S+/c/../a is given twice, before as \S+/a; a folder"),
        (["dpn={0}/b,{0}/[ab]"], r"row 'dpn': \S+/b is given twice"),
        (["dpn={0}/link,{0}/a"], r"row 'dpn': \S+/a is given twice, before as \S+/link"),
        (["dpn={0}/a,{0}/routed"], r"row 'dpn', gqa: \S+/a and \S+/routed differ in method dense / dpn;"),
        (["dpn={0}/routed,{0}/dearer"], r"\S+/dearer differ in mu 0.5 / 1.0, kernels - / \[\[1, 1\]\]; the"),
    ],
)
def test_rows_that_can_not_stand_in_the_table_are_refused(runs, words, message):
    with pytest.raises(ValueError, match=message):
        load_arms([word.format(runs) for word in words], ["llava", "dpn"])


def test_a_row_of_ones_own_is_marked_by_a_plus(runs):
    own, known = load_arms([f"+policy={runs}/a", f"dpn={runs}/b"], ["dpn"])
    assert (own.key, own.is_own, known.is_own) == ("policy", True, False)

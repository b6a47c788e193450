import pytest

from dpn.analysis.routing_page.stages import square_grid, stages_of


def grids(stages):
    return [(stage.rows, stage.columns, stage.tokens) for stage in stages]


def test_kernels_accumulate_over_the_dpes():
    counts = [576] * 8 + [288] * 16 + [72] * 8
    stages = stages_of([(24, 24)], ["1x2", "1x1", "2x2"], counts)
    assert grids(stages) == [(24, 24, 576), (24, 12, 288), (24, 12, 288), (12, 6, 72)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([117, 35, 12], [(9, 13, 117), (5, 7, 35), (3, 4, 12)]),  # edge=ceil
        ([117, 24, 6], [(9, 13, 117), (4, 6, 24), (2, 3, 6)]),  # edge=floor
    ],
)
def test_the_recorded_counts_say_how_edges_of_a_grid_that_is_no_square_were_treated(counts, expected):
    assert grids(stages_of([(9, 13)], ["2x2", "2x2"], counts)) == expected


def test_crops_are_pooled_alike_and_counted_together():
    stages = stages_of([(4, 4)] * 5, ["2x2"], [80, 80, 20])
    assert grids(stages) == [(4, 4, 80), (2, 2, 20)]


@pytest.mark.parametrize(
    ("crops", "route", "counts"),
    [
        ([(8, 8)], ["2x2"], [64, 64]),  # nothing was pooled
        ([(8, 8)], ["2x2"], [60, 60]),  # the image was cut
        ([(8, 8)], ["2x2"], [100, 25]),  # another grid
        ([], ["2x2"], [64, 16]),  # no grid
    ],
)
def test_a_grid_is_not_guessed_where_the_counts_dont_follow(crops, route, counts):
    assert stages_of(crops, route, counts) is None


@pytest.mark.parametrize(("tokens", "grid"), [(576, [(24, 24)]), (10, []), (0, [])])
def test_a_count_is_a_square_grid_or_none(tokens, grid):
    assert square_grid(tokens) == grid

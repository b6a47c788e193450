"""Index plans on small batches that can be followed by hand."""

import numpy as np
import pytest
import torch

from dpn.experts import GridPool
from dpn.layout import Layout
from dpn.spans import LAST, ROUTER, VISUAL

TYPES = torch.tensor(
    [
        [0, VISUAL, VISUAL, VISUAL, VISUAL, 0, ROUTER, LAST, 0],
        [0, LAST, 0, 0, 0, 0, 0, 0, 0],
    ]
)
MASK = torch.tensor([[1] * 9, [1, 1, 1] + [0] * 6])
GRIDS = torch.tensor([[[2, 2]], [[0, 0]]])


def layout():
    return Layout.from_padded(TYPES, MASK, GRIDS)


def test_reading_a_padded_batch():
    read = layout()
    assert read.lengths == (9, 3)
    assert [(span.sample, span.start, span.length, span.grid) for span in read.spans] == [(0, 1, 4, (2, 2))]
    assert read.router_rows.tolist() == [6]
    assert read.last_rows.tolist() == [7, 10]
    assert read.origin.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_pooling_moves_marks_and_positions():
    source, pooled = layout().pool([GridPool((1, 2)), GridPool((2, 2))])
    assert source.tolist()[:4] == [[0] * 4, [1, 2, 1, 2], [3, 4, 3, 4], [5] * 4]
    assert pooled.lengths == (7, 3)
    assert pooled.spans[0].grid == (2, 1)
    assert pooled.router_rows.tolist() == [4]
    assert pooled.last_rows.tolist() == [5, 8]
    assert pooled.positions("renumber").tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert pooled.positions("keep").tolist() == [0, 1, 3, 5, 6, 7, 8, 0, 1, 2]


def test_cells_of_the_caller_find_the_row_they_went_into():
    _, pooled = layout().pool([GridPool((2, 2)), GridPool((2, 2))])
    index, real = pooled.caller_cells()
    assert index[0].tolist() == [0, 1, 1, 1, 1, 2, 3, 4, 5]
    assert index[1, :3].tolist() == [6, 7, 8]
    assert real.tolist() == MASK.bool().tolist()


def test_padding_on_the_left_lines_up_the_ends():
    index, real = layout().padded_index()
    assert index[1].tolist() == [0] * 6 + [9, 10, 11]
    assert real[1].tolist() == [False] * 6 + [True] * 3


def test_adjacent_images_stay_apart():
    types = torch.tensor([[0, VISUAL, VISUAL, VISUAL + 2, VISUAL + 2, LAST]])
    read = Layout.from_padded(types, None, torch.tensor([[[1, 2], [1, 2]]]))
    assert [(span.start, span.length) for span in read.spans] == [(1, 2), (3, 2)]
    source, _ = read.pool([GridPool((1, 2))])
    assert source.tolist() == [[0, 0], [1, 2], [3, 4], [5, 5]]


def test_an_answer_right_behind_an_image_is_routed_by_the_images_last_token():
    types = torch.tensor([[0, VISUAL, VISUAL + 1, 0]])
    read = Layout.from_padded(types, None, torch.tensor([[[1, 2]]]))
    assert read.last_rows.tolist() == [2]
    assert len(read.spans) == 1
    assert read.pool([GridPool((1, 2))])[1].last_rows.tolist() == [1]


def test_a_sample_without_tokens_is_refused():
    with pytest.raises(ValueError, match="sample 1 of the batch has no token"):
        Layout.from_padded(TYPES, MASK * torch.tensor([[1], [0]]), GRIDS)


def test_counts_after_an_expert_are_those_that_pooling_gives():
    read = layout()
    for kernel in ((1, 1), (1, 2), (2, 2), (3, 3)):
        expert = GridPool(kernel)
        assert np.array_equal(read.counts_after(expert), read.pool([expert, expert])[1].visual_counts())


def test_a_routing_token_may_be_the_last_of_the_prompt():
    types = torch.tensor([[0, VISUAL, VISUAL, ROUTER | LAST, 0]])
    read = Layout.from_padded(types, None, torch.tensor([[[1, 2]]]))
    assert read.last_rows.tolist() == [3]
    assert read.router_rows.tolist() == [3]
    pooled = read.pool([GridPool((1, 2))])[1]
    assert (pooled.last_rows.tolist(), pooled.router_rows.tolist()) == ([2], [2])


@pytest.mark.parametrize(
    ("types", "grids", "message"),
    [
        (
            [0, VISUAL, VISUAL, LAST],
            [],
            "image 0 of sample 0 has 2 visual tokens in a row, but its grid is unknown",
        ),
        ([0, VISUAL, VISUAL, LAST], [[0, 0]], "its grid is unknown"),
        (
            [0, VISUAL + 2, VISUAL + 2, LAST],
            [[0, 0], [1, 1]],
            "image 1 .* 2 visual tokens .* its grid is 1x1",
        ),
        ([0, 0, 0, LAST], [[1, 2]], "sample 0 has no visual token of its image 0, whose grid is 1x2"),
        ([0, VISUAL, VISUAL, LAST], [[1, 2], [3, 3]], "no visual token of its image 1, whose grid is 3x3"),
    ],
)
def test_visual_tokens_and_grids_that_do_not_go_together_are_refused(types, grids, message):
    with pytest.raises(ValueError, match=message):
        Layout.from_padded(torch.tensor([types]), None, torch.tensor([grids]).reshape(1, -1, 2))

"""Which rows stay, followed by hand; and what the layout says of rows that the device has chosen."""

import numpy as np
import pytest
import torch

from dpn.layout import Layout
from dpn.selection import best_rows, compete, keep_rows, keep_share, kept_of
from dpn.spans import LAST, VISUAL

IMAGE, NEXT = VISUAL, VISUAL + 2
TYPES = [0, IMAGE, IMAGE, IMAGE, IMAGE, 0, LAST, 0]
"""One image of 2x2 tokens in rows 1 to 4, the last prompt token in row 6."""


def read(*samples, grids):
    length = max(map(len, samples))
    types = torch.tensor([[*types, *[0] * (length - len(types))] for types in samples])
    mask = torch.tensor([[1] * len(types) + [0] * (length - len(types)) for types in samples])
    return Layout.from_padded(types, mask, torch.tensor(grids))


def states(layout):
    """Rows that hold their own number."""
    return torch.arange(len(layout.origin))[:, None].float()


def test_the_share_is_rounded_down_and_never_none():
    assert [kept_of(576, share) for share in (1.0, 0.5, 0.4, 1 / 3)] == [576, 288, 230, 192]
    assert kept_of(10, 1 - 0.9) == 1
    assert kept_of(3, 0.01) == 1


def test_the_best_of_every_image_stay_in_their_order():
    layout = read(TYPES, [0, IMAGE, IMAGE, NEXT, NEXT, LAST], grids=[[[2, 2], [0, 0]], [[1, 2], [1, 2]]])
    scores = torch.tensor([9, 1, 4, 3, 2, 9, 9, 9, 9, 5, 6, 8, 7, 9.0])
    hidden, kept = keep_share(states(layout), layout, scores, 0.5)
    assert hidden.flatten().tolist() == [0, 2, 3, 5, 6, 7, 8, 10, 11, 13]
    assert kept.lengths == (6, 4)
    assert [(span.sample, span.start, span.length, span.grid) for span in kept.spans] == [
        (0, 1, 2, None),
        (1, 7, 1, None),
        (1, 8, 1, None),
    ]
    assert kept.last_rows.tolist() == [4, 9]
    assert kept.visual_counts().tolist() == [2, 2]


def test_equal_scores_keep_the_earlier_token():
    groups, slots = compete(read(TYPES, grids=[[[2, 2]]]), [2])
    assert best_rows(torch.ones(8), groups, slots).tolist() == [0, 1, 2, 5, 6, 7]
    assert slots.tolist() == [0, 1, 2, 5, 6, 7]


def test_keeping_everything_changes_no_object():
    layout = read(TYPES, grids=[[[2, 2]]])
    hidden = states(layout)
    kept = keep_share(hidden, layout, torch.rand(8), 1.0)
    assert kept[0] is hidden
    assert kept[1] is layout
    assert keep_rows(hidden, layout, [np.arange(4)])[1] is layout


def test_positions_and_origins_of_chosen_rows_are_their_own():
    layout = read([0, 0, *TYPES[1:]], TYPES, grids=[[[2, 2]]] * 2)
    scores = torch.tensor([0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 2, 4, 0, 0, 0.0])
    _, kept = keep_share(states(layout), layout, scores, 0.5)
    assert kept.chosen_origin.tolist() == [0, 1, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16]
    device = torch.device("cpu")
    assert kept.device_positions("keep", device).tolist() == [0, 1, 4, 5, 6, 7, 8, 0, 2, 4, 5, 6, 7]
    assert kept.device_positions("renumber", device).tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5]
    text = ~kept.visual_rows()
    assert kept.origin[text].tolist() == kept.chosen_origin[torch.from_numpy(text)].tolist()
    assert kept.position[text].tolist() == [0, 1, 6, 7, 8, 0, 5, 6, 7]


def test_a_second_choice_goes_on_from_the_first():
    layout = read([0, *[IMAGE] * 8, LAST], grids=[[[2, 4]]])
    _, first = keep_share(states(layout), layout, torch.tensor([0, 1, 8, 2, 7, 3, 6, 4, 5, 0.0]), 0.5)
    assert first.chosen_origin.tolist() == [0, 2, 4, 6, 8, 9]
    _, second = keep_share(states(first), first, torch.tensor([0, 1, 2, 4, 3, 0.0]), 0.5)
    assert second.chosen_origin.tolist() == [0, 6, 8, 9]
    _, third = keep_rows(states(second), second, [np.array([1])])
    assert third.chosen_origin.tolist() == [0, 8, 9]
    assert third.device_positions("keep", torch.device("cpu")).tolist() == [0, 8, 9]


def test_cells_of_the_caller_find_the_last_row_in_front_of_them_that_is_left():
    layout = read(TYPES, [IMAGE, IMAGE, LAST], grids=[[[2, 2]], [[1, 2]]])
    scores = torch.tensor([0, 1, 4, 2, 3, 0, 0, 0, 1, 2, 0.0])
    _, kept = keep_share(states(layout), layout, scores, 0.5)
    rows = kept.caller_rows(torch.device("cpu"))
    assert rows[0].tolist() == [0, 0, 1, 1, 2, 3, 4, 5]
    assert rows[1, :3].tolist() == [6, 6, 7]  # nothing is left in front of the first one
    _, known = keep_rows(states(layout), layout, [np.array([1, 3]), np.array([1])])
    assert known.caller_rows(torch.device("cpu")).tolist() == rows.tolist()


def test_a_last_prompt_token_that_is_visual_stays():
    layout = read([0, IMAGE, IMAGE, IMAGE, IMAGE + 1, 0], grids=[[[2, 2]]])
    hidden, kept = keep_share(states(layout), layout, torch.tensor([0, 4, 3, 2, 1, 0.0]), 0.5)
    assert hidden.flatten().tolist() == [0, 1, 4, 5]
    assert kept.last_rows.tolist() == [2]
    hidden, kept = keep_rows(states(layout), layout, [np.zeros(0, np.int64)])
    assert hidden.flatten().tolist() == [0, 4, 5]
    assert kept.visual_counts().tolist() == [1]


def test_a_last_prompt_token_inside_an_image_is_refused():
    layout = read([0, IMAGE, IMAGE + 1, IMAGE, IMAGE, 0], grids=[[[2, 2]]])
    with pytest.raises(ValueError, match="last prompt token of sample 0 lies inside an image"):
        keep_share(states(layout), layout, torch.rand(6), 0.5)


def test_an_image_that_lost_tokens_can_not_be_pooled():
    layout = read(TYPES, TYPES, grids=[[[2, 2]]] * 2)
    _, kept = keep_rows(states(layout), layout, [np.arange(4), np.arange(3)])
    with pytest.raises(ValueError, match=r"dpn pools grids .* an image of sample 1 has none left"):
        kept.require_grids("dpn")
    layout.require_grids("dpn")


def test_nothing_is_read_from_the_device():
    """The device "meta" knows shapes only: reading from it is an error."""
    layout = read(TYPES, TYPES, grids=[[[2, 2]]] * 2)
    with torch.device("meta"):
        hidden, kept = keep_share(torch.zeros(16, 3), layout, torch.zeros(16), 0.5)
    assert hidden.shape == (12, 3)
    assert kept.device_positions("keep", torch.device("meta")).shape == (12,)
    assert kept.caller_rows(torch.device("meta")).shape == (2, 8)

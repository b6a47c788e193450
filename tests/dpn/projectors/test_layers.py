"""The pieces of projectors, on numbers that can be checked by hand, and against torch's own attention."""

import pytest
import torch
from torch import nn

from dpn.projectors.layers import CrossAttention, sincos_positions, squares, to_map, to_tokens


def test_squares_are_squares_of_the_image_not_runs_of_the_sequence():
    tokens = torch.arange(16).reshape(1, 16, 1)  # row-major 4 x 4
    found = squares(tokens, (4, 4), 2)
    assert found.squeeze().tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_a_map_lies_as_the_image_does_and_is_read_back():
    tokens = torch.arange(12).reshape(1, 6, 2)  # 2 x 3 cells of 2 channels
    laid = to_map(tokens, (2, 3))
    assert laid[0, 0].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert torch.equal(to_tokens(laid), tokens)


def test_positions_are_sines_and_cosines_of_row_and_column():
    cells = sincos_positions((3, 5), 8, torch.device("cpu")).reshape(3, 5, 8)
    angles = torch.tensor([2.0, 2.0 / 100])  # row 2 at the two frequencies 1 and 1 / 10000^(1/2)
    torch.testing.assert_close(cells[2, 0, :4], torch.cat([angles.sin(), angles.cos()]))
    torch.testing.assert_close(cells[0, 2, 4:], cells[2, 0, :4])  # columns are encoded as rows are
    assert torch.equal(cells[1, :, :4], cells[1, :1, :4].expand(5, -1))
    assert torch.equal(cells[:, 1, 4:], cells[:1, 1, 4:].expand(3, -1))
    assert len(cells.reshape(15, 8).unique(dim=0)) == 15
    with pytest.raises(ValueError, match="need a width divisible by 4, got 6"):
        sincos_positions((3, 5), 6, torch.device("cpu"))


@pytest.mark.parametrize(("width", "heads"), [(16, 1), (256, 2), (384, 3)])
def test_attention_is_torchs_own(width, heads):
    torch.manual_seed(0)
    ours, theirs = CrossAttention(width), nn.MultiheadAttention(width, heads, batch_first=True)
    assert ours.num_heads == heads
    with torch.no_grad():
        parts = (ours.query, ours.key, ours.value)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    queries, keys, values = torch.randn(2, 3, width), torch.randn(2, 7, width), torch.randn(2, 7, width)
    found = ours(queries, keys, values)
    torch.testing.assert_close(found, theirs(queries, keys, values)[0], rtol=1e-5, atol=1e-5)
    regions = ours(queries[:, None], keys[:, None], values[:, None])  # dimensions between stay apart
    torch.testing.assert_close(regions[:, 0], found)


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="a width of 257 can't be shared out among 2 attention heads"):
        CrossAttention(257)

"""VisionZip: dominant and contextual tokens, computed by hand."""

import pytest
import torch

from dpn.selectors.visionzip import VisionZipConfig, visionzip
from tests.dpn.selectors.cases import attended, one_crop

FEATURES = [[1.0], [2.0], [4.0], [8.0], [16.0], [32.0]]
KEYS = [[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [5.0, 5.0], [0.1, 2.0], [3.0, 0.0]]
ATTENTION = [0.1, 0.1, 0.05, 0.3, 0.1, 0.05]


def crop(**given):
    return one_crop(**{"features": FEATURES, "attention": ATTENTION, "keys": KEYS, "grid": (2, 3), **given})


def test_dominant_tokens_have_the_most_attention_and_lie_as_in_the_image():
    kept = visionzip(VisionZipConfig(dominant=2, contextual=0), crop())
    assert kept.features.flatten().tolist() == [1, 8]  # 0.3 first; of the equals the one that lies earlier
    assert kept.counts == (2,)


def test_a_contextual_token_is_the_mean_of_a_target_and_those_most_like_it():
    kept = visionzip(VisionZipConfig(dominant=1, contextual=2), crop())
    # Others are 0, 1, 2, 4, 5; targets the first (0) and, 5 // 2 places on, the third (2). By the cosine of
    # keys 1 and 4 lean to 2 (0.11 and 0.16 over 0 and 0.05), 5 to 0 (1 over 0.99).
    assert kept.features.flatten().tolist() == pytest.approx([8, (1 + 32) / 2, (4 + 2 + 16) / 3])


def test_a_target_stays_its_own_where_another_has_the_same_key():
    kept = visionzip(VisionZipConfig(dominant=0, contextual=6), crop(keys=[[1.0, 1.0]] * 6))
    assert kept.features.flatten().tolist() == [value for [value] in FEATURES]


def test_every_crop_keeps_as_many_as_asked():
    kept = visionzip(VisionZipConfig(), attended(2, grid=(24, 24)))
    assert kept.counts == (64, 64)
    assert VisionZipConfig().amounts(576) == (54, 10)
    assert VisionZipConfig().amounts(64) == (6, 1)


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"dominant": 16, "contextual": 1}, r"dominant=16 and contextual=1 ask for 16 \+ 1 tokens of the 16"),
        ({"dominant": 0.01, "contextual": 0}, r"ask for 0 \+ 0 tokens of the 16 features of a crop; 1 to 16"),
    ],
)
def test_amounts_that_a_crop_cannot_give_are_refused(fields, asked):
    with pytest.raises(ValueError, match=asked):
        visionzip(VisionZipConfig(**fields), attended(1))


def test_the_class_tokens_attention_decides_and_nothing_else():
    seen = attended(1)
    config = VisionZipConfig(dominant=4, contextual=0)
    turned = seen._replace(attention=seen.attention.flip(1))
    assert not torch.equal(visionzip(config, turned).features, visionzip(config, seen).features)
    other = seen._replace(keys=seen.keys.flip(1))
    assert torch.equal(visionzip(config, other).features, visionzip(config, seen).features)

"""Broken images, unusable text and lengths are found and named; a run's quick check stops at the first."""

import re

import pytest
from PIL import Image

from llava.constants import IGNORE_INDEX
from llava.data.encode import encode_uncut
from llava.data.records import Record
from llava.data.verify import (
    CUT,
    MISSING,
    NOTHING_LEFT,
    TEXT,
    UNREADABLE,
    Checks,
    quick_check,
    spread,
    verify,
)

SHOWN = {"from": "human", "value": "<image>\nWhat?"}
ANSWER = {"from": "gpt", "value": "A cat."}


def record(name, image=None, conversations=None):
    asked = SHOWN if image else {"from": "human", "value": "What?"}
    return Record(name, image, tuple(conversations or (asked, ANSWER)), "data.json")


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "good.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    return tmp_path


def kinds(found):
    return [(finding.sample, finding.kind, finding.is_problem) for finding in found]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_broken_sample_is_found_whoever_does_the_work(folder, num_workers):
    silent = ({"from": "human", "value": "a"}, {"from": "gpt", "value": ""})
    records = [record(f"good{index}", "good.png") for index in range(100)]
    records += [record("a", "gone.png"), record("b", "torn.png"), record("c", None, silent), record("d")]
    found = verify(records, Checks(image_folder=folder, version="v1"), num_workers=num_workers)
    assert kinds(found) == [("a", MISSING, True), ("b", UNREADABLE, True), ("c", TEXT, True)]
    assert [
        re.search(r"no file .*gone|torn\.png can't be read|every gpt message is empty", f.message)
        for f in found
    ]


def test_a_name_that_no_file_can_have_is_a_finding_like_others(folder):
    records = [record("a", "x" * 5000), record("b", "gone.png")]
    found = verify(records, Checks(image_folder=folder, version="v1"))
    assert kinds(found) == [("a", UNREADABLE, True), ("b", MISSING, True)]
    assert found[0].message.endswith("can't be reached (File name too long)")
    with pytest.raises(ValueError, match=r"2 of 2 images .*: x{200} \(sample a: File name too long\), gone"):
        quick_check(records, folder, version="v1")


def test_images_are_left_unread_without_their_folder():
    assert not verify([record("a", "gone.png")], Checks(image_folder=None, version="v1"))


@pytest.mark.parametrize(
    ("limit_of", "expected"),
    [
        (lambda length, _: length, []),
        (lambda length, _: length - 1, [("a", CUT, False)]),
        (lambda _, first_learned: first_learned + 1, [("a", CUT, False)]),
        (lambda _, first_learned: first_learned, [("a", NOTHING_LEFT, True)]),
    ],
)
def test_lengths_count_visual_tokens_and_what_is_cut(tokenizer, limit_of, expected):
    sample, extra = record("a", "b.png"), 9  # an image of 10 visual tokens
    ids, labels = encode_uncut(sample.conversations, tokenizer, version="v1", has_image=True)
    first_learned = (labels != IGNORE_INDEX).nonzero()[0].item()
    checks = Checks(
        image_folder=None,
        version="v1",
        tokenizer=tokenizer,
        model_max_length=limit_of(len(ids) + extra, first_learned + extra),
        tokens_per_image=1 + extra,
    )
    assert kinds(verify([sample], checks)) == expected


def test_a_sample_is_spread_over_the_file():
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(3), 10) == [0, 1, 2]
    with pytest.raises(ValueError, match="at least one record, got 0"):
        spread([], 0)


def test_the_quick_check_passes_good_data(folder):
    quick_check([record("a", "good.png"), record("b")], folder, version="v1")
    quick_check([record("b")], None, version="v1")


def test_the_quick_check_counts_all_missing_images_and_names_the_first(folder):
    records = [record("1", "good.png"), record("2"), record("3", "gone.png"), record("4", "lost.png")]
    with pytest.raises(ValueError, match=r"2 of 3 images are missing in .*gone\.png \(sample 3\), lost\.png"):
        quick_check(records, str(folder), version="v1")


def test_the_quick_check_demands_a_folder_only_if_a_sample_has_an_image():
    with pytest.raises(ValueError, match="--image_folder is missing: 1 samples have an image"):
        quick_check([record("1", "a.png")], None, version="v1")


def test_the_quick_check_opens_images_and_reads_text(folder):
    with pytest.raises(
        ValueError, match=r"1 of 2 samples tried can't be used:\n  sample b: image .*torn\.png"
    ):
        quick_check([record("a", "good.png"), record("b", "torn.png")], folder, version="v1")
    with pytest.raises(ValueError, match=r"1 of 1 samples .*\n  sample b: the plain format needs"):
        quick_check([record("b")], folder, version="plain")

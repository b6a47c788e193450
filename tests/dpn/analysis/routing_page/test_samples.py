import base64
import io

import pytest
from PIL import Image

from dpn.analysis.routing_page.answers import read_sources
from dpn.analysis.routing_page.pictures import Pictures
from dpn.analysis.routing_page.questions import Questions
from dpn.analysis.routing_page.samples import build_data, spread
from tests.dpn.analysis.routing_page.conftest import PROBABILITIES, SCORES, make_row


@pytest.fixture
def build(write_answers, image_folder):
    def make(rows, *, scores=SCORES, questions=(), side=48, **options):
        sources = read_sources([str(write_answers(rows, scores=scores))])
        return build_data(sources, Pictures(image_folder, side), Questions(questions), **options)

    return make


def decoded(image):
    return Image.open(io.BytesIO(base64.b64decode(image["data"])))


def test_a_sample_holds_what_the_page_shows(build):
    (sample,) = build([make_row()])["samples"]
    assert sample["question"] == "What is number 0?"
    assert sample["stages"] == [(8, 8, 64), (8, 8, 64), (8, 4, 32), (4, 2, 8)]
    assert sample["counts"] == [64, 64, 32, 8]
    assert sample["tokens"] == pytest.approx((4 * 64 + 2 * 32 + 2 * 8) / 8)
    assert sample["probabilities"] == PROBABILITIES
    assert (sample["score"], sample["gold"], sample["flops"]) == (1.0, "5", {"paper": 0.6, "full": 0.7})


@pytest.mark.parametrize("changes", [{"score": None}, {"score": None, "gold": ""}])
def test_a_score_that_isnt_there_stays_unknown(build, changes):
    (sample,) = build([make_row(**changes)])["samples"]
    assert sample["score"] is None


def test_a_line_without_score_gold_and_flops_is_shown_without_them(build):
    row = {key: value for key, value in make_row().items() if key not in ("score", "gold", "flops_ratio")}
    (sample,) = build([row])["samples"]
    assert sample["score"] is sample["gold"] is None
    assert sample["flops"] == {"paper": None, "full": None}


def test_an_image_is_kept_once_and_scaled_down(build):
    rows = [make_row(0, "gqa/wide.png"), make_row(1, "gqa/wide.png"), make_row(2, "gqa/tall.jpg")]
    data = build(rows)
    assert [sample["image"] for sample in data["samples"]] == [0, 0, 1]
    assert [image["path"] for image in data["images"]] == ["gqa/wide.png", "gqa/tall.jpg"]
    assert [(image["width"], image["height"]) for image in data["images"]] == [(128, 64), (60, 90)]
    assert [decoded(image).size for image in data["images"]] == [(48, 24), (32, 48)]


def test_lines_from_before_grids_were_written_have_one_square_crop(build):
    (sample,) = build([make_row(visual_grids=[])])["samples"]
    assert sample["stages"][0] == (8, 8, 64)
    scores = SCORES | {"image_aspect_ratio": "anyres"}
    (sample,) = build([make_row(visual_grids=[])], scores=scores)["samples"]  # 64 = 4 crops of 4x4, too
    assert sample["stages"] is None
    assert sample["counts"] == [64, 32, 8]


@pytest.mark.parametrize(
    ("aspect_ratio", "fit"), [("pad", "contain"), ("square", "cover"), ("anyres", "fill")]
)
def test_the_grid_lies_over_the_square_that_the_tower_saw(build, aspect_ratio, fit):
    scores = SCORES | {"image_aspect_ratio": aspect_ratio}
    assert build([make_row(image="gqa/wide.png")], scores=scores)["sources"][0]["fit"] == fit


def test_how_an_image_was_made_square_is_not_guessed(build):
    rows = [make_row(), make_row(1, "gqa/wide.png")]
    with pytest.raises(ValueError, match=r"gqa/wide.png is 128x64.*pass --image_aspect_ratio"):
        build(rows, scores=None)
    assert build(rows, scores=None, aspect_ratio="pad")["sources"][0]["fit"] == "contain"
    assert build(rows[:1], scores=None)["samples"]  # a square needs no answer


def test_missing_images_are_named_and_counted(build):
    rows = [make_row(0), *(make_row(number, f"gqa/gone{number}.png") for number in range(1, 9))]
    with pytest.raises(
        ValueError, match=r"8 of 9 images are missing \(\S+/gqa/gone1.png.*gone5.png, \.\.\.\)"
    ):
        build(rows)


@pytest.mark.parametrize("image", ["../secret.png", "/etc/passwd", "gqa/../../secret.png"])
def test_an_image_outside_the_folder_is_refused(build, image):
    with pytest.raises(ValueError, match=r"question q0: image .* leads out of --image_folder"):
        build([make_row(image=image)])


def test_an_image_path_that_no_file_can_have_is_named(build):
    with pytest.raises(ValueError, match=r"^image \S{,200}: no such file can be there \(File name too"):
        build([make_row(image="a" * 5000)])


def test_a_prompt_of_nothing_but_ocr_tokens_is_its_own_question(build):
    (sample,) = build([make_row(prompt="Reference OCR token: A")])["samples"]
    assert sample["question"] == "Reference OCR token: A"


def test_an_image_that_cant_be_read_is_named(build, image_folder):
    (image_folder / "gqa" / "square.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"gqa/square.png can't be read"):
        build([make_row()])


def test_a_limit_keeps_all_questions_of_the_images_it_takes():
    rows = [{"image": name, "id": number} for number, name in enumerate("abcabcabcabc")]
    assert spread(rows, None) == spread(rows, 12) == rows
    assert [row["image"] for row in spread(rows, 8)] == ["a"] * 4 + ["b"] * 4
    assert len(spread(rows, 2)) == 2
    assert [row["id"] for row in spread([{"image": None, "id": number} for number in range(10)], 2)] == [0, 5]


def test_question_files_add_what_lines_lack(build, image_folder, tmp_path):
    lines = tmp_path / "questions.jsonl"
    text = make_row()["prompt"]
    lines.write_text(
        '{"question_id": "q0", "image": "x.png", "text": "another question", "category": "wrong"}\n'
        f'{{"question_id": "q0", "image": "x.png", "text": "{text.replace(chr(10), chr(92) + "n")}", '
        '"category": "compare", "grade": "coarse"}\n'
    )
    (sample,) = build([make_row()], questions=[lines])["samples"]
    assert (sample["category"], sample["grade"], sample["image"]) == ("compare", "fine", 0)  # the line wins


def test_the_category_default_says_nothing(build, tmp_path):
    lines = tmp_path / "questions.jsonl"
    lines.write_text('{"question_id": "q0", "text": "", "category": "default"}\n')
    (sample,) = build([make_row(kind="jump")], questions=[lines])["samples"]
    assert sample["category"] == "jump"


def test_images_inside_mmbenchs_file_are_shown(build, image_folder, tmp_path):
    image = base64.b64encode((image_folder / "gqa" / "wide.png").read_bytes()).decode()
    table = tmp_path / "mmbench.tsv"
    table.write_text(f"index\tquestion\tcategory\timage\n7\tWhat?\tlogic\t{image}\n8\tAnd?\tlogic\t{image}\n")
    rows = [make_row(question_id=7, image=None), make_row(question_id=8, image=None)]
    data = build(rows, questions=[table])
    assert [sample["image"] for sample in data["samples"]] == [0, 0]
    assert [sample["category"] for sample in data["samples"]] == ["logic", "logic"]
    assert (data["images"][0]["path"], data["images"][0]["width"]) == ("inside the question file", 128)
    assert build(rows)["samples"][0]["image"] is None  # without the file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.json", "{}", r"q.json: expected one of LLaVA's question files"),
        ("q.jsonl", "{}\n", r"q.jsonl:1: no question_id"),
        ("q.jsonl", "nothing\n", r"q.jsonl:1: not valid JSON"),
        ("q.tsv", "a\tb\n", r"q.tsv: no column image, index"),
        ("q.tsv", "index\timage\n1\t!\n", r"q.tsv:2: the image is not base64"),
    ],
)
def test_what_is_no_question_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Questions([path])


def test_a_question_file_that_isnt_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone.jsonl: can't be read"):
        Questions([tmp_path / "gone.jsonl"])

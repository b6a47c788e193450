"""Answer files with known routes, and their images: a square one, a wide one, a tall one."""

import json

import pytest
from PIL import Image

SIZES = {"square.png": (96, 96), "wide.png": (128, 64), "tall.jpg": (60, 90)}
KERNELS = [[1, 1], [1, 2], [2, 2]]
PROBABILITIES = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]]
SCORES = {
    "benchmark": "gqa",
    "protocol": "gqa_testdev_balanced",
    "image_aspect_ratio": "pad",
    "reduction": {"method": "dpn", "layers": [2, 4, 6], "kernels": KERNELS, "eval_choice": "argmax"},
}


def make_row(number=0, image="gqa/square.png", **changes):
    """One answer line as the runner writes it: 8x8 tokens, then 8x8, 8x4, 4x2."""
    return {
        "question_id": f"q{number}",
        "prompt": f"What is number {number}?\nAnswer the question using a single word or phrase.",
        "text": "five",
        "answer_id": "abc",
        "model_id": "tiny",
        "metadata": {},
        "grade": "fine",
        "gold": "5",
        "score": 1.0,
        "image": image,
        "route": ["1x1", "1x2", "2x2"],
        "probabilities": PROBABILITIES,
        "tokens_per_layer": [84] * 4 + [52, 52, 28, 28],
        "visual_tokens_per_layer": [64] * 4 + [32, 32, 8, 8],
        "visual_grids": [[8, 8]],
        "flops_ratio": {"paper": 0.6, "full": 0.7},
    } | changes


@pytest.fixture
def write_answers(tmp_path):
    def write(rows, *, run="policy", benchmark="gqa", scores=SCORES):
        """Write results/RUN/BENCHMARK/answers.jsonl; rows that are text are written as they are."""
        folder = tmp_path / "results" / run / benchmark
        folder.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = folder / "answers.jsonl"
        path.write_text("".join(line + "\n" for line in lines))
        if scores is not None:
            (folder / "scores.json").write_text(json.dumps(scores | {"benchmark": benchmark}))
        return path

    return write


@pytest.fixture
def image_folder(tmp_path):
    folder = tmp_path / "images"
    for benchmark in ("gqa", "pope"):
        (folder / benchmark).mkdir(parents=True)
        for name, size in SIZES.items():
            Image.new("RGB", size, (200, 80, 40)).save(folder / benchmark / name)
    return folder

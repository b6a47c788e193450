"""Result folders as the evaluation writes them, without a model: known routes, three grades."""

import json
import random
import shutil

import pytest
from PIL import Image, ImageDraw

BENCHMARKS = {"gqa": "gqa_testdev_balanced", "pope": "pope_mean_f1", "textvqa": "textvqa+ocr"}
GRADES = ("coarse", "medium", "fine")
LAYERS = [2, 4, 6]
KEPT = {"1x1": 1, "1x2": 2, "2x2": 4}
QUESTIONS = (
    "Is there anything red?",
    "How many blue digits are there in the picture?",
    "Which digit is at row 3?",
)


@pytest.fixture
def make_run(tmp_path):
    def make(name, *, accuracy=0.8, routes=None, eval_choice="argmax", seconds=0.01, **changes):
        """Write one run; `routes` maps a grade to a route, None means dense."""
        reduction = None
        if routes is not None:
            reduction = {"method": "dpn", "preset": "policy", "layers": LAYERS, "eval_choice": eval_choice}
        for benchmark, protocol in BENCHMARKS.items():
            rows = answer_rows(benchmark, accuracy, routes)
            scores = {
                "benchmark": benchmark,
                "protocol": protocol,
                "headline": "f1" if benchmark == "pope" else "accuracy",
                "metrics": {"f1": 100 * accuracy, "accuracy": 100 * accuracy},
                **cost(rows),
                "by_grade": {grade: by_grade(rows, grade) for grade in GRADES},
                "seconds_per_sample": seconds,
                "reduction": reduction,
                "device": "cpu",
                "dtype": "float32",
                "batch_size": 8,
                **changes,
            }
            folder = tmp_path / "results" / name / benchmark
            folder.mkdir(parents=True)
            (folder / "scores.json").write_text(json.dumps(scores))
            (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "results" / name

    return make


def answer_rows(benchmark, accuracy, routes):
    generator = random.Random(benchmark)
    rows = []
    for number in range(60):
        grade = GRADES[number % 3]
        route = [] if routes is None else list(routes[grade][number % len(routes[grade])])
        right = generator.random() < accuracy
        rows.append(
            {
                "question_id": str(number),
                "prompt": f"{QUESTIONS[number % 3]}\nAnswer the question using a single word or phrase.",
                "text": "5" if right else "2",
                "gold": "5",
                "score": float(right),
                "grade": grade,
                "image": f"{benchmark}/images/{number % 4}.png",
                "route": route,
                "visual_tokens_per_layer": tokens(route),
                "flops_ratio": {
                    "paper": sum(tokens(route)) / 512,
                    "full": sum(tokens(route)) / 512 * 0.9 + 0.1,
                },
            }
        )
    return rows


def tokens(route):
    count, layers = 64, [64, 64]
    for kernel in route or ["1x1"] * 3:
        count //= KEPT[kernel]
        layers += [count, count]
    return layers


def cost(rows):
    def mean(values):
        return sum(values) / len(values)

    return {
        "flops_ratio": {name: mean([row["flops_ratio"][name] for row in rows]) for name in ("paper", "full")},
        "visual_tokens": mean([mean(row["visual_tokens_per_layer"]) for row in rows]),
    }


def by_grade(rows, grade):
    members = [row for row in rows if row["grade"] == grade]
    accuracy = 100 * sum(row["score"] for row in members) / len(members)
    return {"num_questions": len(members), "accuracy": accuracy, **cost(members)}


@pytest.fixture
def data_root(tmp_path):
    for benchmark in BENCHMARKS:
        folder = tmp_path / "data" / benchmark / "images"
        folder.mkdir(parents=True)
        for number in range(4):
            image = Image.new("RGB", (64, 64), (230, 230, 225))
            draw = ImageDraw.Draw(image)
            for cell in range(0, 64, 8):
                draw.text(
                    (cell, (cell * (number + 3)) % 60), str(cell % 7), fill=(200, 20 * number, cell * 3)
                )
            image.save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def make_study(make_run, tmp_path):
    def make(**points):
        """Write a study; every point maps seeds to the arguments of `make_run`."""
        study = tmp_path / "study"
        for point, seeds in points.items():
            for seed, arguments in enumerate(seeds):
                made = make_run(f"{point}-{seed}", **arguments)
                target = study / "runs" / point.split("@")[0] / f"seed{seed}" / "points" / point
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(made, target)
        return study

    return make

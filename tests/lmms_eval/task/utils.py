"""What small_world.yaml needs: images, text, truth and metric of the small world's POPE questions."""

import os
from pathlib import Path

from PIL import Image


def doc_to_visual(doc):
    return [Image.open(Path(os.environ["SMALL_WORLD"]) / "val2014" / doc["image"]).convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["text"]


def doc_to_target(doc):
    return doc["answer"]


def process_results(doc, results):
    return {"exact": float(results[0].strip().lower() == doc["answer"])}

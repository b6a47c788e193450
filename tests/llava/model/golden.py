"""Reference cases and checkpoints for the model's tests."""

import json
import shutil
from functools import cache

import numpy as np
import torch

from llava.model.builder import load_pretrained_model
from tests.golden_data import case_folder, golden_root

TOLERANCE = {"atol": 1e-4, "rtol": 0}
"""Of features, logits, hidden states and losses, as the reference data's README states it."""
OPTIONS = {"max_new_tokens": 16, "do_sample": False}
BEAMS = {"num_beams": 3, "return_dict_in_generate": True, "output_scores": True}


@cache
def index(kind):
    """Give the descriptions of all cases of a kind by name; none where the subset lacks the kind."""
    path = case_folder(kind) / "index.json"
    return {case["name"]: case for case in json.loads(path.read_text())} if path.is_file() else {}


@cache
def arrays(kind, name):
    """Give the tensors of a case."""
    with np.load(case_folder(kind) / f"{name}.npz") as data:
        return {key: torch.from_numpy(data[key]) for key in data.files}


def load(name, folder, **overrides):
    """Load a reference checkpoint with some fields of its config.json changed: model, image processor.

    `folder` becomes a copy whose vision tower is named by its full path.
    """
    shutil.copytree(golden_root() / "common" / name, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    config = json.loads((folder / "config.json").read_text())
    config |= {"mm_vision_tower": str(golden_root() / "common" / config["mm_vision_tower"]), **overrides}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_pretrained_model(str(folder), None, "any name", device="cpu", device_map=None)
    return loaded[1], loaded[2]


def until_end(ids, ends=(2,)):
    """Cut a row of ids in front of its first end token.

    The original writes the first of several end tokens whichever it meant, and fills beams up with other ids
    than transformers 5 does.
    """
    row = ids.tolist()
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]

"""Outputs of the original LLaVA-1.5 on a tiny checkpoint (tests/golden/llava/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from llava.model.builder import load_pretrained_model

GOLDEN = Path(__file__).parents[2] / "golden" / "llava"


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(GOLDEN / "common")  # its config.json names the tower "clip-tiny"
        return load_pretrained_model("llava-tiny", None, "llava-tiny", device="cpu", device_map=None)[1]


@pytest.mark.parametrize("case", sorted(path.stem for path in (GOLDEN / "mm").glob("*.npz")))
def test_logits_loss_greedy_and_beams_are_the_originals(model, case):
    data = np.load(GOLDEN / "mm" / f"{case}.npz")
    ids = torch.from_numpy(data["input_ids"]).reshape(1, -1)
    images = torch.from_numpy(data["pixel_values"]) if "pixel_values" in data.files else None
    prompt = {"attention_mask": torch.ones_like(ids), "images": images}
    output = model(input_ids=ids, labels=torch.from_numpy(data["labels_in"]).reshape(1, -1), **prompt)
    logits = output.logits[0, torch.from_numpy(data["logit_positions"])]
    torch.testing.assert_close(logits, torch.from_numpy(data["logits"]), atol=1e-4, rtol=0)
    np.testing.assert_allclose(output.loss.item(), data["loss"], atol=1e-4, equal_nan=True)
    greedy = model.generate(ids, max_new_tokens=16, do_sample=False, **prompt)
    assert greedy.tolist() == data["greedy_ids"].tolist()
    beams = model.generate(
        ids, max_new_tokens=16, num_beams=3, num_return_sequences=3, do_sample=False, **prompt
    )
    assert beams.tolist() == data["beam3_ids"].tolist()

"""What keeps ZeRO-3's ranks in step: every training batch calls the same modules in the same order.

Modules without parameters count, too: ZeRO-3 traces them all, and gathers and frees by that trace.
"""

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from tests.llava.model.shrinking import NAMES, asked

PRESETS = {
    "paper": ["preset=paper", "min_tokens=2", "skip_below=2"],
    "policy": ["preset=policy", "credit=later"],
    "value": ["preset=value"],
}
TEXT = list(range(10, 30))
SAMPLES = {
    "image": [1, IMAGE_TOKEN_INDEX, *TEXT],
    "text": [1, *TEXT],
    "image behind the cut": [1, *TEXT * 40, IMAGE_TOKEN_INDEX, *TEXT],
}
ROUTES = {
    "drawn": None,
    "all kept": [[0, 0]],
    "kept, then pooled": [[0, 2]],
    "pooled, then kept": [[2, 0]],
}


def called(model, sample, *, routes=None, learns=True):
    """List the modules that a training step of one sample enters, forward and backward."""
    token = model.config.router_token_id
    ids = torch.tensor([SAMPLES[sample] + ([] if token is None else [token])])
    labels = ids.clone() if learns else torch.full_like(ids, IGNORE_INDEX)
    labels[ids == IMAGE_TOKEN_INDEX] = IGNORE_INDEX
    names = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: names.append(name))
        for name, module in model.named_modules()
    ]
    images = torch.zeros(1, 3, 56, 56)
    given = None if routes is None else torch.tensor(routes)
    output = model(input_ids=ids, labels=labels, images=images, routes=given)
    assert routes is None or [choice[0] for choice in output.routing.choices] == routes[0]
    names.append("backward")
    model.zero_grad()
    output.loss.backward()
    for hook in hooks:
        hook.remove()
    names += [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    return names


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_batch_calls_the_same_modules_and_parameters(preset, checkpointing, tiny_llava):
    model = tiny_llava("dpn", "layers=1,2", *PRESETS[preset])[1].train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    expected = called(model, "image")
    assert {"model.rotary_emb", "model.mm_projector", "model.reducer", "lm_head"} <= set(expected)
    for routes in ROUTES.values():
        assert called(model, "image", routes=routes) == expected
    assert called(model, "text") == expected
    assert called(model, "image behind the cut") == expected
    assert called(model, "image", learns=False) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_projector_with_fewer_tokens_is_called_by_every_batch_alike(name, tiny_llava):
    model = tiny_llava(**asked(name))[1].train()
    expected = called(model, "image")
    inside = {key for key in expected if key.startswith("model.mm_projector.")}
    assert {f"model.mm_projector.{key}" for key, _ in model.model.mm_projector.named_parameters()} <= inside
    for sample in ("text", "image behind the cut"):
        assert called(model, sample) == expected

"""A decoder whose layers and routers lie on two devices, prefilled and continued.

The second device is torch's "meta", which knows shapes only: it refuses every operation on tensors of both,
as two GPUs do, and stands for a GPU that no test machine has.
"""

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import recursively_apply
from transformers.cache_utils import DynamicCache

from dpn.cache import lengths
from tests.dpn.pyramids import GRID, NUM_LAYERS, make_batch, make_config, make_model, make_sample

BATCH = make_batch([make_sample(3, [GRID], 4, seed=1), make_sample(1, [GRID, GRID], 2, seed=2)], "left")
ROUTES = torch.tensor([[1, 0, 2], [2, 1, 1]])


class MovesInputs(ModelHook):
    """What accelerate puts in front of a module: everything but the named arguments goes to its device."""

    def __init__(self, device, kept):
        self.device, self.kept = device, kept

    def pre_forward(self, module, *args, **kwargs):
        moved = {name: value for name, value in kwargs.items() if name not in self.kept}
        args, moved = recursively_apply(lambda tensor: tensor.to(self.device), (args, moved))
        return args, {**kwargs, **moved}


@pytest.fixture(autouse=True)
def _meta_is_a_device_like_others(monkeypatch):
    """Let copies away from "meta" give zeros, and autocast know the device."""
    to, autocast, is_enabled = torch.Tensor.to, torch.autocast, torch.is_autocast_enabled

    def copied(self, *given, **named):
        try:
            return to(self, *given, **named)
        except NotImplementedError:
            return to(torch.zeros_like(self, device="cpu"), *given, **named)

    monkeypatch.setattr(torch.Tensor, "to", copied)
    monkeypatch.setattr(torch, "autocast", lambda _, **named: autocast("cpu", **named))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: is_enabled("cpu"))


@pytest.mark.parametrize("source", ["last", "both"])
@pytest.mark.parametrize("routers", ["with the first layers", "with the last layers", "apart"])
@pytest.mark.parametrize("cut", [1, 3])  # 1 lies between two stages, 3 within one
@pytest.mark.parametrize("devices", [("cpu", "meta"), ("meta", "cpu")])
def test_no_operation_meets_tensors_of_two_devices(devices, cut, routers, source):
    first, second = devices
    model = make_model(make_config(gate="probability", router_source=source))
    kept = model._skip_keys_device_placement
    places = {"embed_tokens": first, "rotary_emb": first, "norm": second}
    places |= {f"layers.{number}": first if number < cut else second for number in range(NUM_LAYERS)}
    if routers == "apart":
        places |= {"reducer.routers.0": first, "reducer.routers.1": second, "reducer.routers.2": first}
    else:
        places["reducer"] = first if "first" in routers else second
    for name, device in places.items():
        add_hook_to_module(model.get_submodule(name).to(device), MovesInputs(device, kept))
    cache, mask = DynamicCache(), BATCH["attention_mask"]
    embeds = BATCH["inputs_embeds"].to(first)
    with torch.no_grad():
        prefill = model(**{**BATCH, "inputs_embeds": embeds}, routes=ROUTES, past_key_values=cache)
        full = torch.cat([mask, mask.new_ones(2, 1)], dim=1).to(first)
        step = model(inputs_embeds=embeds[:, :1], attention_mask=full, past_key_values=cache)
    assert prefill.last_hidden_state.device.type == step.last_hidden_state.device.type == second
    assert [layer.keys.device.type for layer in cache.layers] == [places[f"layers.{n}"] for n in range(5)]
    assert lengths(cache) == [36, 16, 16, 16, 10]


def test_an_automatic_map_never_tears_a_layer_or_the_routers_apart():
    assert {"LlamaDecoderLayer", "DynamicPyramid"} <= set(make_model(make_config())._no_split_modules)

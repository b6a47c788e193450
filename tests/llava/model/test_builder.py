"""Checkpoints come back as they went out, and say what is wrong with them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.builder import load_pretrained_model
from llava.train.build import build_for_training
from llava.train.checkpoint import save_projector
from tests.llava.model.prompts import PROMPTS, WITH_ROUTER, make_batch

DPN = ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
STATIC = ["dpn", "layers=1,2,3", "eval_choice=static", "route=2x2,1x2,1x1"]


def load(path, **kwargs):
    return load_pretrained_model(
        str(path), kwargs.pop("model_base", None), device="cpu", device_map=None, **kwargs
    )


def save(build, path, *words, **options):
    tokenizer, model, _ = build(*words, **options)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model.eval()


def answers(model):
    batch = make_batch(PROMPTS if model.config.router_token_id is None else WITH_ROUTER)
    return model.generate_with_report(
        batch["input_ids"], attention_mask=batch["attention_mask"], images=batch["images"], max_new_tokens=5
    )


@pytest.mark.parametrize("words", [(), DPN, (*DPN, "preset=paper")])
def test_a_saved_model_answers_as_before(tiny_llava, tmp_path, words):
    model = save(tiny_llava, tmp_path, *words)
    tokenizer, again, processor, context = load(tmp_path)
    assert again.config.reduction == model.config.reduction
    assert (processor.crop_size["height"], context) == (56, 2048)
    assert answers(again)[1] == answers(model)[1]
    assert torch.equal(answers(again)[0], answers(model)[0])
    assert len(tokenizer) == again.model.embed_tokens.num_embeddings
    assert not any("vision_tower" in name for name in load_file(tmp_path / "model.safetensors"))


def test_the_paper_preset_adds_one_row_the_mean_of_the_others_and_the_policy_none(tiny_llava):
    tokenizer, model, _ = tiny_llava(*DPN, "preset=paper")
    weight = model.model.embed_tokens.weight
    assert len(weight) == 1001
    assert tokenizer.convert_tokens_to_ids("<ROUTER>") == model.config.router_token_id == 1000
    torch.testing.assert_close(weight[1000], weight[:1000].mean(0))
    assert tiny_llava(*DPN)[1].model.embed_tokens.num_embeddings == 1000


def test_routes_can_be_forced_on_a_trained_checkpoint_and_its_training_can_not_be_changed(
    tiny_llava, tmp_path
):
    save(tiny_llava, tmp_path, *DPN)
    _, reports = answers(load(tmp_path, reduction=["dpn", "eval_choice=static", "route=2x2,1x2,1x1"])[1])
    assert reports[0].route == ("2x2", "1x2", "1x1")
    assert reports[0].visual_tokens_per_layer == (16, 4, 2, 2)
    random = load(tmp_path, reduction=["dpn", "eval_choice=random"])[1]
    assert len({answers(random)[1][0].route for _ in range(8)}) > 1
    with pytest.raises(ValueError, match=r"trained with temperature=1.0"):
        load(tmp_path, reduction=["dpn", "temperature=3"])
    with pytest.raises(ValueError, match="can't run with --reduction none"):
        load(tmp_path, reduction=["none"])


def test_a_plain_checkpoint_takes_forced_routes_only(tiny_llava, tmp_path):
    save(tiny_llava, tmp_path)
    assert answers(load(tmp_path, reduction=STATIC)[1])[1][0].visual_tokens_per_layer == (16, 4, 2, 2)
    with pytest.raises(ValueError, match="has no router"):
        load(tmp_path, reduction=list(DPN))
    with pytest.raises(ValueError, match="decoder with 4 layers"):
        load(tmp_path, reduction=["dpn", "eval_choice=random"])


@pytest.mark.parametrize("words", [(), DPN])
def test_missing_and_unexpected_keys_are_errors_that_list_them(tiny_llava, tmp_path, words):
    save(tiny_llava, tmp_path, *words)
    weights = load_file(tmp_path / "model.safetensors")
    gone = [
        name for name in weights if name.endswith("predictor.weight") or name == "model.mm_projector.2.bias"
    ]
    changed = {name: value for name, value in weights.items() if name not in gone}
    save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing \['model.mm_projector.2.bias'"):
        load(tmp_path)
    save_file(
        {**weights, "model.extra": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"unexpected \['model.extra'\]"):
        load(tmp_path)


def test_a_projector_of_stage_1_goes_with_its_base(tiny_llava, tiny_base, tiny_clip, tmp_path):
    model = tiny_llava()[1].eval()
    save_projector(model, tmp_path, is_writer=True)
    loaded = load(tmp_path, model_base=str(tiny_base))[1]
    assert torch.equal(answers(loaded)[0], answers(model)[0])
    stage2 = build_for_training(
        model_name_or_path=str(tiny_base),
        vision_tower=str(tiny_clip),
        mm_projector_type="mlp2x_gelu",
        mm_use_im_patch_token=False,
        pretrain_mm_mlp_adapter=str(tmp_path / "mm_projector.bin"),
    )[1]
    for name, value in model.model.mm_projector.state_dict().items():
        assert torch.equal(stage2.model.mm_projector.state_dict()[name], value)
    with pytest.raises(ValueError, match="check --mm_projector_type"):
        build_for_training(
            model_name_or_path=str(tiny_base),
            vision_tower=str(tiny_clip),
            mm_use_im_patch_token=False,
            pretrain_mm_mlp_adapter=str(tmp_path / "mm_projector.bin"),
        )


def test_directories_that_are_no_checkpoint_are_named(tmp_path, tiny_llava):
    with pytest.raises(ValueError, match=r"no checkpoint at .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no config.json"):
        load(tmp_path)
    save(tiny_llava, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mm_vision_tower": "gone/away/clip"}))
    with pytest.raises(ValueError, match=r"vision tower gone/away/clip: no such directory"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="declares model_type 'gpt2'"):
        load(tmp_path)


def test_a_layer_that_the_base_does_not_have_is_refused_before_training(tiny_llava):
    with pytest.raises(ValueError, match="layers=8,16,24 doesn't fit a decoder with 4 layers"):
        tiny_llava("dpn")


def test_a_kernel_that_does_not_divide_the_grid_is_refused_before_training(tiny_llava):
    with pytest.raises(ValueError, match="kernel 3x3 does not divide the 4x4 grid"):
        tiny_llava("dpn", "layers=1,2", "kernels=1x1,3x3")


def test_an_unknown_way_to_join_crops_is_refused_before_training(tiny_llava):
    with pytest.raises(ValueError, match="unknown mm_patch_merge_type 'foo'"):
        tiny_llava(mm_patch_merge_type="foo")


def test_continuing_a_checkpoint_keeps_its_reduction(tiny_llava, tiny_clip, tmp_path):
    model = save(tiny_llava, tmp_path, *DPN)
    options = {
        "vision_tower": str(tiny_clip),
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
    }
    again = build_for_training(model_name_or_path=str(tmp_path), **options)[1]
    assert again.config.reduction == model.config.reduction
    router = "model.reducer.routers.0.hidden.weight"
    assert torch.equal(again.state_dict()[router], model.state_dict()[router])


@pytest.mark.parametrize("words", [(), DPN])
@pytest.mark.parametrize("others", ["disk", "cpu:0", torch.device("cpu", 0)])
def test_a_model_spread_over_two_places_answers_as_one_that_is_not(tiny_llava, tmp_path, words, others):
    folder = tmp_path / "checkpoint"
    save(tiny_llava, folder, *words)
    parts = ["embed_tokens", "rotary_emb", "norm", "mm_projector", "vision_tower", *words[:1]]
    names = ["lm_head", *(f"model.{part.replace('dpn', 'reducer')}" for part in parts)]
    places = {
        name: others if name in ("lm_head", "model.norm", "model.embed_tokens") else "cpu" for name in names
    }
    places |= {f"model.layers.{number}": "cpu" if number < 2 else others for number in range(4)}
    spread = load_pretrained_model(
        str(folder), None, device="cpu", device_map=places, offload_folder=str(tmp_path / "offloaded")
    )[1]
    assert any(parameter.is_meta for parameter in spread.parameters()) == (others == "disk")
    expected, found = answers(load(folder)[1]), answers(spread)
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}, torch.device("cpu")])
def test_a_map_without_gpus_needs_no_device_beside_it(tiny_llava, tmp_path, monkeypatch, device_map):
    """What lmms-eval passes with `device_map=auto` on a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    save(tiny_llava, tmp_path, *DPN)
    options = {"multimodal": True, "attn_implementation": "sdpa"}
    model = load_pretrained_model(str(tmp_path), None, "name", device_map=device_map, **options)[1]
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert model.get_vision_tower().dtype == torch.float32
    assert torch.equal(answers(model)[0], answers(load(tmp_path)[1])[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "device='cuda', but torch sees no GPU; pass device='cpu'"),
        ({"device": "cuda", "device_map": None}, "device='cuda', but torch sees no GPU"),
        ({"device_map": "cuda:0"}, "device_map='cuda:0', but torch sees no GPU; pass device_map='auto'"),
        ({"device_map": {"model": "cpu", "lm_head": 0}}, "device_map={.*}, but torch sees no GPU"),
    ],
)
def test_a_gpu_that_is_not_there_is_an_error(monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        load_pretrained_model("anywhere", None, **options)


def test_a_map_that_forgets_a_module_is_refused_by_name(tiny_llava, tmp_path):
    save(tiny_llava, tmp_path, *DPN)
    parts = ("embed_tokens", "rotary_emb", "norm", "mm_projector", "vision_tower")
    places = {"lm_head": "disk", "model.layers": "cpu", **{f"model.{part}": "cpu" for part in parts}}
    with pytest.raises(ValueError, match=r"device_map .*model\.reducer"):
        load_pretrained_model(str(tmp_path), None, device="cpu", device_map=places)


def test_a_checkpoint_from_before_advantages_were_remembered_still_loads(tiny_llava, tmp_path):
    save(tiny_llava, tmp_path, *DPN)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.reducer.policy.advantage_moments")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert not load(tmp_path)[1].model.reducer.policy.advantage_moments.any()

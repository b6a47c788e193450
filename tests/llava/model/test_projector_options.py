"""Projectors with options in checkpoints: what is saved is read again, the rest refused by name."""

import json

import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.convert import main as convert
from llava.model.projector_options import asked_options
from llava.model.reduction import PROJECTORS
from llava.train.checkpoint import save_projector
from tests.llava.model.prompts import make_batch
from tests.llava.model.shrinking import NAMES, asked


def load(path, base=None):
    return load_pretrained_model(str(path), None if base is None else str(base), device="cpu")[1]


def logits(model):
    return model(**{**make_batch(), "labels": None}).logits


def edit(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def stage_one(tiny_llava, tmp_path):
    """A function that gives stage 1's folder of a projector, and the model that it was saved from."""

    def make(name, folder="stage1", **options):
        model = tiny_llava(**asked(name, **options))[1].eval()
        save_projector(model, tmp_path / folder, is_writer=True)
        return tmp_path / folder, model

    return make


@pytest.mark.parametrize("name", NAMES)
def test_stage_one_is_read_with_its_base_in_inference_and_in_stage_two(
    stage_one, tiny_llava, tiny_base, name
):
    folder, model = stage_one(name)
    assert json.loads((folder / "config.json").read_text())["mm_projector_type"] == name
    assert torch.equal(logits(load(folder, tiny_base)), logits(model))
    file = str(folder / "mm_projector.bin")
    second = tiny_llava(seed=5, pretrain_mm_mlp_adapter=file, **asked(name))[1].eval()
    assert torch.equal(logits(second), logits(model))


@pytest.mark.parametrize("name", NAMES)
def test_a_full_checkpoint_is_read_again(tiny_llava, tmp_path, name):
    tokenizer, model, _ = (
        tiny_llava("dpn", "layers=1,2", **asked(name)) if name != "resampler" else tiny_llava(**asked(name))
    )
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.config.mm_projector_options == model.config.mm_projector_options
    assert torch.equal(logits(again), logits(model.eval()))


def test_config_json_holds_all_options_and_none_for_llavas_own(stage_one):
    fields = [json.loads((stage_one(name, name)[0] / "config.json").read_text()) for name in NAMES]
    assert [field["mm_projector_options"] for field in fields] == [
        {"scale": 2},
        {"scale": 2},
        {"scale": 2, "layers": []},
        {"scale": 2},
        {"num_queries": 4},
        {"scale": 2, "depth": 3},
    ]
    assert (
        json.loads((stage_one("mlp2x_gelu")[0] / "config.json").read_text())["mm_projector_options"] is None
    )


@pytest.mark.parametrize("name", [*NAMES, "mlp2x_gelu"])
def test_a_file_of_another_type_is_refused(stage_one, tiny_llava, name):
    other = "average_pool" if name != "average_pool" else "mlp2x_gelu"
    file = str(stage_one(other)[0] / "mm_projector.bin")
    with pytest.raises(ValueError, match=r"holds the projector weights .* check --mm_projector_type"):
        tiny_llava(pretrain_mm_mlp_adapter=file, **asked(name))


def test_a_file_of_other_options_is_refused_where_its_shapes_would_not_tell(stage_one, tiny_llava):
    folder, _ = stage_one("token_packer", scale=4)
    file = str(folder / "mm_projector.bin")
    with pytest.raises(
        ValueError, match=r"trained with other options of token_packer, {'scale': 4, 'layers': \[\]}"
    ):
        tiny_llava(pretrain_mm_mlp_adapter=file, **asked("token_packer"))
    assert tiny_llava(pretrain_mm_mlp_adapter=file, **asked("token_packer", scale=4))
    (folder / "config.json").unlink()  # a file by itself is believed
    assert tiny_llava(pretrain_mm_mlp_adapter=file, **asked("token_packer"))


def test_a_directory_whose_config_describes_another_projector_is_refused(stage_one, tiny_base):
    folder, _ = stage_one("token_packer")
    edit(folder, mm_projector_type="ldp_v2", mm_projector_options={"scale": 2})
    with pytest.raises(
        ValueError, match=r"the weights in .* don't fit: missing .*mm_projector.position.bias"
    ):
        load(folder, tiny_base)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"mm_projector_type": "average_poll"},
            "unknown mm_projector_type 'average_poll'; did you mean average_pool",
        ),
        ({"mm_projector_options": {"scael": 2}}, r"average_pool has no 'scael'; did you mean scale\?"),
        ({"mm_projector_options": {"scale": "2"}}, "scale must be a whole number, found '2'"),
        ({"mm_projector_options": {"scale": 3}}, "scale=3 does not divide the 4x4 grid"),
        (
            {"mm_vision_select_feature": "cls_patch"},
            "takes a grid of features, which mm_vision_select_feature='cls_pa",
        ),
        (
            {"mm_projector_type": "mlp2x_gelu"},
            r"mm_projector_options={'scale': 2}, but mm_projector_type=mlp2x_gelu",
        ),
        (
            {"mm_projector_type": "token_packer", "mm_projector_options": {"layers": [7]}},
            "layers=7 must name different hidden states",
        ),
        (
            {"mm_projector_type": "resampler", "mm_projector_options": {"num_queries": 17}},
            "num_queries=17 is more than the vision tower's 4x4 features",
        ),
        (
            {
                "mm_projector_type": "resampler",
                "mm_projector_options": {"num_queries": 4},
                "mm_patch_merge_type": "spatial",
            },
            "mm_patch_merge_type='spatial' lays .* those of mm_projector_type=resampler form no grid",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_weights_are_read(tiny_llava, tmp_path, fields, message):
    tokenizer, model, _ = tiny_llava(**asked("average_pool"))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    edit(tmp_path, **fields)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_hf_format_cannot_express_it(tiny_llava, tmp_path, name):
    tokenizer, model, _ = tiny_llava(**asked(name))
    model.save_pretrained(tmp_path / "llava")
    tokenizer.save_pretrained(tmp_path / "llava")
    with pytest.raises(
        ValueError, match=f"LlavaForConditionalGeneration can't express mm_projector_type='{name}'"
    ):
        convert(["--src", str(tmp_path / "llava"), "--dst", str(tmp_path / "hf"), "--to", "hf"])
    assert not (tmp_path / "hf").exists()


def test_the_flags_words_become_what_config_json_stores():
    assert asked_options("token_packer", ["scale=3"]) == {"scale": 3, "layers": []}
    assert asked_options("token_packer", []) is None
    assert asked_options("mlp2x_gelu", []) is None
    with pytest.raises(
        ValueError, match="--mm_projector_type mlp2x_gelu has no options, only average_pool, "
    ):
        asked_options("mlp2x_gelu", ["scale=2"])
    with pytest.raises(ValueError, match="unknown mm_projector_type 'mpl2x_gelu'; did you mean mlp2x_gelu"):
        asked_options("mpl2x_gelu", [])
    for name in PROJECTORS:
        with pytest.raises(ValueError, match=f"did you mean {name}"):
            asked_options(f"{name}s", [])

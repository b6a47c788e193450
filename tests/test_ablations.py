"""scripts/ablations/*.env: every row of the paper's Tables 3 and 4, at full size and on the small world."""

from pathlib import Path

import pytest

from dpn.analysis.paper import TABLES
from dpn.build import check_divides, check_fits
from llava.model.reduction import parse_reduction
from llava.train.arguments import ModelArguments, parse
from tests.script_runs import run_script

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "scripts" / "ablations"
NAMES = sorted(path.stem for path in FOLDER.glob("*.env"))
WITHOUT_DPE = ("baseline", "pre-pooling")
ROUTED = [name for name in NAMES if name not in WITHOUT_DPE]
SHARED = {"LAUNCHER": "none", "ZERO": "none", "BASE": "a/b", "VISION_TOWER": "a/b"}
SIZES = {"7b": {}, "13b": {"PRESET": "13b"}, "toy": {"PRESET": "toy"}}


def command(name, inputs, *flags, script=None, **variables):
    """The words of `python -m llava.train` that a script makes of an ablation."""
    script = script or ("finetune" if name in WITHOUT_DPE else "finetune_dpn")
    result = run_script(f"scripts/{script}.sh", *flags, **({"ABLATION": name} | SHARED | inputs | variables))
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()
    assert words[:3] == ["python", "-m", "llava.train"]
    return words[3:]


def reduction(name, inputs, size="7b", **variables):
    arguments = parse(command(name, inputs, **SIZES[size], **variables))
    return parse_reduction(arguments.model.reduction)


def test_every_row_of_tables_3_and_4_has_its_file():
    assert set(NAMES) == {row.key for name in ("table3", "table4") for row in TABLES[name].rows}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ROUTED)
def test_it_parses_and_fits_the_model(name, size, inputs):
    config = reduction(name, inputs, size)
    grid, num_layers = {"7b": ((24, 24), 32), "13b": ((24, 24), 40), "toy": ((8, 8), 8)}[size]
    check_fits(config, num_layers)
    check_divides(config, grid)
    assert (config.preset, len(config.layers)) == ("paper", 3)


@pytest.mark.parametrize("kernel", [(2, 1), (1, 2), (2, 2)])
def test_a_static_row_pools_alike_everywhere_and_learns_no_router(kernel, inputs):
    config = reduction(f"static-{kernel[0]}x{kernel[1]}", inputs)
    assert config.route == (kernel,) * 3
    assert (config.train_choice, config.eval_choice) == ("static", "static")
    assert (config.gate, config.loss_weight, config.router_source) == ("none", 0.0, "last")


def test_the_loss_row_is_the_other_without_the_loss(inputs):
    assert reduction("no-loss", inputs).to_dict() == reduction("dpn", inputs).to_dict() | {"loss_weight": 0.0}
    assert reduction("dpn", inputs).loss_weight == 0.01


def test_experts_and_places_of_the_dynamic_rows(inputs):
    assert reduction("dynamic-2x2-4x4", inputs).kernels == ((2, 2), (4, 4))
    early = [reduction("early", inputs, size).layers for size in SIZES]
    assert early == [(4, 8, 12), (5, 10, 15), (1, 2, 3)]
    assert [reduction("dpn", inputs, size).layers for size in SIZES] == [(8, 16, 24), (10, 20, 30), (2, 4, 6)]
    assert reduction("random", inputs).train_choice == "random"


def test_the_baseline_is_the_plain_recipe(inputs):
    words = command("baseline", inputs)
    assert "--reduction" not in words
    assert words == run_script("scripts/finetune.sh", **(SHARED | inputs)).stdout.splitlines()[3:]


@pytest.mark.skipif(
    "mm_projector_options" not in ModelArguments.__dataclass_fields__,
    reason="llava.train has no projector `average_pool` (--mm_projector_options) yet",
)
@pytest.mark.parametrize("script", ["pretrain", "finetune"])
def test_pre_pooling_is_a_projector_in_both_stages(script, inputs):
    words = command("pre-pooling", inputs, script=script)
    model = parse(words).model
    assert (model.mm_projector_type, model.mm_projector_options) == ("average_pool", ["scale=2"])
    assert model.reduction == []


def test_the_limits_of_the_small_world_stay(inputs):
    config = reduction("static-2x2", inputs, "toy")
    assert (config.min_tokens, config.skip_below) == (2, 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_its_own_folder_and_the_users_word_wins(name, inputs):
    del inputs["OUTPUT"]
    words = command(name, inputs)
    assert words[words.index("--output_dir") + 1] == f"checkpoints/ablations/{name}"
    words = command(name, inputs, PRESET="toy")
    assert words[words.index("--output_dir") + 1] == f"checkpoints/ablations/toy-{name}"
    words = command(name, inputs, OUTPUT="elsewhere")
    assert words[words.index("--output_dir") + 1] == "elsewhere"


def test_variables_and_words_of_the_user_come_on_top(inputs):
    config = reduction("no-loss", inputs, LOSS_WEIGHT="0.5", REDUCTION="pooling=avg", DPN_LAYERS="1,2,3")
    assert (config.loss_weight, config.pooling, config.layers) == (0.5, "avg", (1, 2, 3))


@pytest.mark.parametrize(
    ("script", "name", "message"),
    [
        ("finetune", "static-2x2", "ABLATION=static-2x2 is trained by scripts/finetune_dpn.sh"),
        ("finetune_dpn", "baseline", "ABLATION=baseline is trained by scripts/finetune.sh"),
        ("finetune_dpn_lora", "random", "ABLATION=random is trained by scripts/finetune_dpn.sh"),
        ("pretrain", "random", "ABLATION=random has no stage 1 of its own: leave ABLATION out"),
        (
            "finetune_dpn",
            "static-9x9",
            "no ablation 'static-9x9': there is no scripts/ablations/static-9x9.env",
        ),
    ],
)
def test_the_wrong_script_and_an_unknown_name_are_refused(script, name, message, inputs):
    result = run_script(f"scripts/{script}.sh", ABLATION=name, **inputs)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stdout == ""

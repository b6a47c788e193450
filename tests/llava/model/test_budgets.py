"""`generate(routes=..., budget=...)`: for this call only, and refused where it can't be kept."""

import json
import math

import pytest
import torch

from llava.model.budgets import FILE, Budgets, mean_share
from llava.model.builder import load_pretrained_model
from llava.model.identity import checkpoint_digest
from llava.model.reduction import BudgetTable
from tests.llava.model.prompts import PROMPTS, make_batch

DPN = ("dpn", "layers=1,2,3")
GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
ROWS = BudgetTable(
    (-1000.0, 0.0, 1.0, 1000.0), {"visual": (1.0, 0.7, 0.4, 0.4), "full": (1.0, 0.8, 0.6, 0.6)}
)
CHEAPEST = ("2x2", "2x2", "2x2")


def generate(model, **options):
    batch = make_batch([PROMPTS[0], PROMPTS[1], PROMPTS[3]])
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"], **GREEDY, **options}
    return model.generate_with_report(batch["input_ids"], **given)


def calibrated(model, table=ROWS):
    model.budgets = Budgets(table=table, reduction=model.config.reduction, checkpoint="0" * 16, provenance={})
    return model.eval()


@pytest.fixture
def checkpoint(tiny_llava, tmp_path):
    """Give a saved DPN checkpoint with a calibration: folder, model."""
    tokenizer, model, _ = tiny_llava(*DPN)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    budgets = Budgets(
        table=ROWS,
        reduction=model.config.reduction,
        checkpoint=checkpoint_digest(tmp_path),
        provenance={"seed": 0},
    )
    budgets.write(tmp_path)
    return tmp_path


def load(folder, **options):
    return load_pretrained_model(str(folder), None, device="cpu", **options)[1]


def test_routes_may_be_named_per_prompt_and_stage(tiny_llava):
    model = tiny_llava(*DPN)[1].eval()
    routes = [["1x1", "2x2", "1x2"], ["2x2", "1x1", "1x1"], ["1x2", "1x2", "1x1"]]
    ids, reports = generate(model, routes=routes)
    assert [list(sample.route) for sample in reports] == routes
    indices = torch.tensor([[0, 2, 1], [2, 0, 0], [1, 1, 0]])
    assert torch.equal(generate(model, routes=indices)[0], ids)
    assert torch.equal(generate(model, routes=indices.tolist())[0], ids)


def test_a_budget_moves_the_routes_of_one_call_only(tiny_llava):
    model = calibrated(tiny_llava(*DPN)[1])
    before, reports = generate(model)
    cheap, shifted = generate(model, budget=0.4)
    assert {sample.route for sample in shifted} == {CHEAPEST}
    assert mean_share(shifted, model.config) < mean_share(reports, model.config) < 1
    assert mean_share(generate(model, budget=1.0)[1], model.config) == 1.0
    assert not torch.equal(cheap, before)
    assert torch.equal(generate(model)[0], before)


def test_the_counting_chooses_the_column(tiny_llava):
    table = BudgetTable((-1000.0, 1000.0), {"visual": (1.0, 0.5), "full": (0.5, 0.3)})
    model = calibrated(tiny_llava(*DPN)[1], table)
    assert {sample.route for sample in generate(model, budget=0.5)[1]} == {CHEAPEST}
    assert {sample.route for sample in generate(model, budget=0.5, counting="full")[1]} == {("1x1",) * 3}


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_a_budget_holds_for_every_beam_and_sample(tiny_llava, options):
    model = calibrated(tiny_llava(*DPN)[1])
    reports = generate(model, budget=0.4, **options)[1]
    assert {sample.route for sample in reports} == {CHEAPEST}


def test_a_budget_is_what_forcing_its_routes_would_be(tiny_llava):
    model = calibrated(tiny_llava(*DPN)[1])
    ids, reports = generate(model, budget=0.7)
    assert torch.equal(generate(model, routes=[list(sample.route) for sample in reports])[0], ids)


def test_text_only_prompts_do_not_count(tiny_llava):
    model = tiny_llava(*DPN)[1].eval()
    batch = make_batch([PROMPTS[2], PROMPTS[2]])
    _, reports = model.generate_with_report(batch["input_ids"], images=batch["images"], **GREEDY)
    assert math.isnan(mean_share(reports, model.config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.2}, "out of reach"),
        ({"budget": 1.5}, "share of the dense FLOPs"),
        ({"budget": 0.4, "counting": "paper"}, "counting must be one of visual, full, got 'paper'"),
        ({"counting": "full"}, "belongs to a budget"),
        ({"budget": 0.4, "routes": [CHEAPEST] * 3}, "budget=0.4 and routes both decide"),
        ({"budget": 0.4, "router_shift": torch.zeros(3)}, "budget=0.4 and router_shift both decide"),
        ({"routes": [["2x2", "2x2"], ["2x2"], ["2x2"]]}, r"one kernel per DPE layer \(1, 2, 3\)"),
        ({"routes": "2x2,2x2,2x2"}, "routes need one list per prompt"),
        ({"routes": []}, r"routes must have the shape \(3, 3\)"),
        ({"routes": [["2x2", 1, "1x1"]] * 3}, "routes name kernels .* or their indices .*, not both"),
        ({"routes": ["2x2", "2x2", "1x1"]}, "routes need one list per prompt"),
        ({"router_shift": torch.full((3,), float("nan"))}, "router_shift must be finite"),
        ({"budget": "0.4"}, "a number such as 0.4, got '0.4'"),
        ({"budget": True}, "a number such as 0.4, got True"),
        ({"routes": [["2x2", "2x2"]] * 3}, r"routes must have the shape \(3, 3\)"),
        ({"routes": [["4x4", "2x2", "2x2"]] * 3}, r"routes name \[\(4, 4\)\]"),
    ],
)
def test_what_cannot_be_kept_is_refused(tiny_llava, options, message):
    with pytest.raises(ValueError, match=message):
        generate(calibrated(tiny_llava(*DPN)[1]), **options)


def test_a_model_that_is_not_calibrated_or_not_routed_says_so(tiny_llava):
    with pytest.raises(ValueError, match=r"isn't calibrated, it has no budgets\.json; python -m llava"):
        generate(tiny_llava(*DPN)[1].eval(), budget=0.4)
    with pytest.raises(ValueError, match="this one is plain LLaVA"):
        generate(tiny_llava()[1].eval(), budget=0.4)
    with pytest.raises(ValueError, match="routes are given, but"):
        generate(tiny_llava()[1].eval(), routes=[CHEAPEST] * 3)
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        generate(calibrated(tiny_llava(*DPN)[1]).train(), budget=0.4)


def test_a_loaded_checkpoint_brings_its_calibration(checkpoint):
    model = load(checkpoint)
    assert model.budgets.table == ROWS
    assert model.budgets.provenance == {"seed": 0}
    assert {sample.route for sample in generate(model, budget=0.4)[1]} == {CHEAPEST}


def test_a_calibration_of_other_weights_is_refused_when_it_is_asked_for(checkpoint):
    model = load(checkpoint)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(checkpoint)
    changed = load(checkpoint)
    generate(changed)
    with pytest.raises(ValueError, match=r"measured for other weights .* calibrate again"):
        generate(changed, budget=0.4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("router_bias=0,0,1",), r"measured with router_bias=\(0.0, 0.0, 0.0\) \(now \(0.0, 0.0, 1.0\)\)"),
        (("eval_choice=random",), "which eval_choice=random doesn't ask"),
    ],
)
def test_a_calibration_of_another_configuration_is_refused(checkpoint, words, message):
    model = load(checkpoint, reduction=["dpn", *words])
    with pytest.raises(ValueError, match=message):
        generate(model, budget=0.4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 is of another version"),
        ({"table": {"shift": [0, 1], "visual": [1, 0.5]}}, "its table has the columns shift, visual"),
        ({"table": {"shift": [0, 1], "visual": [1, 2], "full": [1, 1]}}, "never increasing"),
        ({"checkpoint": None}, "has no 'checkpoint'"),
    ],
)
def test_a_broken_file_is_named(checkpoint, change, message):
    path = checkpoint / FILE
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    with pytest.raises(ValueError, match=rf"{FILE}.*{message}.*calibrate again"):
        load(checkpoint)

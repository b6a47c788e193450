import json

import pytest
import torch

from llava.conversation import conv_templates
from llava.eval.inputs import Item, PromptStyle, QuestionItems, batches_of_like_length, collate
from tests.llava.eval.conftest import GOLDEN, read_lines

DRIVERS = json.loads((GOLDEN / "drivers" / "expected.json").read_text())


@pytest.mark.parametrize(
    ("case", "template"), [("loader_greedy", "vicuna_v1"), ("loader_startend_beams", "llava_v1")]
)
def test_prompts_are_byte_identical_to_the_original_loader(case, template):
    expected = DRIVERS[case]
    style = PromptStyle(
        template=conv_templates[template], routing=None, use_start_end=expected["mm_use_im_start_end"]
    )
    questions = read_lines(GOLDEN / "drivers" / "questions.jsonl")
    prompts = ["<BOS>" + style.prompt(line["text"]).replace("<image>", "<IMG>") for line in questions]
    assert prompts == [
        prompt.format(SYSTEM=conv_templates["vicuna_v1"].system) for prompt in expected["prompts"]
    ]


def test_the_routing_token_follows_the_question():
    template = conv_templates["vicuna_v1"]
    style = PromptStyle(template=template, routing=("<ROUTER>", "first_turn"), use_start_end=False)
    assert style.prompt("Is it red?").endswith("USER: <image>\nIs it red?<ROUTER> ASSISTANT:")


def test_prompts_are_padded_on_the_left():
    items = [
        Item(number, torch.full((n,), 7), torch.zeros(3, 2, 2), (4, 4)) for number, n in enumerate((2, 3))
    ]
    batch = collate(items, pad_token_id=0)
    assert batch.input_ids.tolist() == [[0, 7, 7], [7, 7, 7]]
    assert batch.attention_mask.tolist() == [[False, True, True], [True, True, True]]
    assert batch.images.shape == (2, 3, 2, 2)


def test_images_of_different_shapes_stay_a_list():
    items = [Item(0, torch.ones(1), torch.zeros(n, 3, 2, 2), (4, 4)) for n in (2, 3)]
    assert isinstance(collate(items, pad_token_id=0).images, list)


def test_a_batch_holds_prompts_of_similar_length():
    assert batches_of_like_length([9, 1, 8, 2, 5], [0, 1, 2, 3], 2) == [[1, 3], [2, 0]]


def test_an_unreadable_image_is_named_with_its_question(make_plan, session):
    plan = make_plan()
    plan.questions[2].image.write_bytes(b"not an image")
    items = QuestionItems(
        questions=plan.questions,
        prompts=[torch.ones(1)] * len(plan.questions),
        image_processor=session.image_processor,
        model_config=session.model.config,
    )
    with pytest.raises(ValueError, match=r"question 3: can't use image .*000003.jpg"):
        items[2]

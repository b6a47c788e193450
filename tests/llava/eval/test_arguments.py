import pytest

from llava.eval.arguments import parse

REQUIRED = ["--benchmarks", "gqa", "pope", "--model_path", "m", "--output_dir", "o"]


def test_hyphens_and_underscores_are_the_same():
    words = ["--benchmarks", "gqa", "--model-path", "m", "--output-dir", "o", "--batch-size", "3"]
    assert parse(words).batch_size == parse([*REQUIRED, "--batch_size", "3"]).batch_size == 3


def test_the_reduction_takes_several_words():
    arguments = parse([*REQUIRED, "--reduction", "dpn", "eval_choice=random", "--batch_size", "2"])
    assert arguments.reduction == ["dpn", "eval_choice=random"]
    assert arguments.benchmarks == ["gqa", "pope"]


def test_generation_is_greedy_by_default():
    assert parse(REQUIRED).generation(128) == {
        "max_new_tokens": 128,
        "num_beams": 1,
        "use_cache": True,
        "do_sample": False,
    }


def test_a_budget_goes_to_generate_with_its_counting():
    asked = parse([*REQUIRED, "--budget", "0.4", "--counting", "full"]).generation(8)
    assert (asked["budget"], asked["counting"]) == (0.4, "full")
    assert "counting" not in parse(REQUIRED).generation(8)


def test_what_changes_the_answers_shows_in_the_label():
    words = ["--temperature", "0.2", "--max_samples", "5", "--num_beams", "3"]
    assert parse([*REQUIRED, *words]).label_suffix() == "+first_5+sampled+beams_3"
    assert parse(REQUIRED).label_suffix() == ""
    assert parse([*REQUIRED, "--temperature", "0.2"]).generation(8)["temperature"] == 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_size", "0"], "--batch_size must be 1 or more, got 0"),
        (["--max_samples", "0"], "--max_samples must be 1 or more, got 0"),
        (["--temperature", "nan"], "--temperature must be a finite number of 0 or more, got nan"),
        (["--num_workers", "-1"], "--num_workers must not be negative, got -1"),
        (["--dtype", "int8"], "--dtype must be one of auto, float32, float16, bfloat16, got 'int8'"),
        (["--budget", "40"], "--budget is a share of the dense FLOPs above 0 and up to 1, got 40.0"),
        (["--counting", "paper"], "--counting must be one of visual, full, got 'paper'"),
        (["--benchmarks", "gqa", "gqa"], "--benchmarks names gqa more than once"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(words, message):
    with pytest.raises(ValueError, match=message):
        parse([*REQUIRED, *words])

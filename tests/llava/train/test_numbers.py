import pytest

from llava.train.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--per_device_train_batch_size 0", "--per_device_train_batch_size must be at least 1, got 0"),
        ("--gradient_accumulation_steps 0", "--gradient_accumulation_steps must be at least 1, got 0"),
        ("--mm_projector_lr -1", "--mm_projector_lr must be at least 0, got -1.0"),
        ("--mm_projector_lr nan", "--mm_projector_lr must be at least 0, got nan"),
        ("--learning_rate inf", "--learning_rate must be at least 0, got inf"),
        ("--weight_decay -0.1", "--weight_decay must be at least 0, got -0.1"),
        ("--max_grad_norm -1", "--max_grad_norm must be at least 0, got -1.0"),
        ("--lora_enable True --lora_alpha 0", "--lora_alpha must be at least 1, got 0"),
        ("--num_train_epochs 0 --max_steps -1", "--num_train_epochs 0 leaves nothing to train"),
        ("--save_strategy steps --save_steps 0", "--save_steps must be above 0, got 0"),
        ("--estimate True --estimate_gpus -4", "--estimate_gpus must be at least 0, got -4"),
    ],
)
def test_a_number_that_no_run_can_work_with_is_named(words, message, command, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(command(tmp_path, *words.split()))
    assert message in str(ended.value.code)


def test_the_smallest_numbers_pass(command, tmp_path, capsys):
    words = "--weight_decay 0 --max_grad_norm 0 --mm_projector_lr 0 --lora_alpha 0 --num_train_epochs 0"
    main(command(tmp_path, *words.split(), "--estimate", "True"))  # no adapter, and --max_steps says how long
    assert "estimate per GPU" in capsys.readouterr().out

import pytest
import torch

from llava.eval.session import choose_device, choose_dtype, template_mark


def test_the_dtype_is_upstreams_on_a_gpu_and_exact_on_a_cpu():
    assert choose_dtype("auto", torch.device("cuda", 0)) is torch.float16
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16


def test_every_rank_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", 3) == torch.device("cuda", 3)
    assert choose_device("cuda:1", 3) == torch.device("cuda", 1)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 0) == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda: this machine has no usable GPU"):
        choose_device("cuda", 0)


def test_a_misspelt_device_is_refused():
    with pytest.raises(ValueError, match="--device cdua is no device; expected auto, cuda, cuda:N or cpu"):
        choose_device("cdua", 0)


def test_a_template_the_checkpoint_did_not_learn_shows_in_the_label():
    assert template_mark("vicuna_v1", "auto") == ""
    assert template_mark("vicuna_v1", "v1") == ""
    assert template_mark("vicuna_v1", "llava_v1") == "+conv_llava_v1"

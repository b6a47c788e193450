import time

import pytest
import torch
from torch import nn

from llava.eval.phases import PhaseClock


class Slow(nn.Module):
    def forward(self, seconds):
        time.sleep(seconds)


CPU = torch.device("cpu")


def test_the_first_forward_pass_is_the_prefill():
    model = Slow()
    with PhaseClock(model, CPU) as clock:
        time.sleep(0.02)
        model(0.05)
        model(0.01)
        model(0.01)
    seconds = clock.seconds()
    assert 0.02 <= seconds.encode < 0.05
    assert 0.05 <= seconds.prefill < 0.09
    assert 0.02 <= seconds.decode < 0.05
    assert seconds.total == pytest.approx(sum(seconds))


def test_no_hook_stays_on_the_model_even_after_an_error():
    model = Slow()
    with pytest.raises(RuntimeError, match="stopped"), PhaseClock(model, CPU):
        raise RuntimeError("stopped")
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_the_same_clock_may_time_again():
    model = Slow()
    clock = PhaseClock(model, CPU)
    for pause in (0.03, 0.0):
        with clock:
            model(pause)
    assert clock.seconds().prefill < 0.03

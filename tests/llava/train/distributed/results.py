"""What a run has left in its output folder."""

import json

import torch
from safetensors.torch import load_file


def logged(output, *names):
    """Give what every log line of a training step says under these names."""
    lines = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [[line[name] for name in names] for line in lines if "loss" in line]


def losses(output):
    """Give (steps, 2): loss and gradient norm."""
    return torch.tensor(logged(output, "loss", "grad_norm"))


def weights(folder):
    """Give all tensors that a folder's files hold, by name."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    for file in folder.glob("*.bin"):
        if file.name != "training_args.bin":
            tensors |= torch.load(file, weights_only=True)
    return tensors


def check_equal(output, expected):
    """Demand the same log and the same weights, bit for bit."""
    names = ("step", "loss", "grad_norm", "learning_rate", "epoch")
    assert logged(output, *names) == logged(expected, *names)
    found, wanted = weights(output), weights(expected)
    assert found
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)

"""Adam without PyTorch's compiler."""

import subprocess
import sys

import torch
from torch import nn

from shared.diffusion.adam import Adam

TRAINING = """
import sys
import torch
from shared.diffusion.training import OptimizerSettings, train
module = torch.nn.Linear(3, 1)
train(module, lambda: module(torch.ones(4, 3)).square().mean(), OptimizerSettings(steps=2))
print("torch._dynamo" in sys.modules)
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2), nn.Linear(2, 2))


def test_every_step_equals_that_of_pytorch_bit_by_bit() -> None:
    ours, theirs = network(), network()
    adam = Adam(list(ours.parameters()))
    reference = torch.optim.Adam(theirs.parameters(), fused=True)
    generator = torch.Generator().manual_seed(1)
    for rate in (1e-2, 3e-3, 0.0, 1e-3):
        batch = torch.randn(16, 5, generator=generator)
        reference.param_groups[0]["lr"] = rate
        for module, clear in ((ours, adam.clear_gradients), (theirs, reference.zero_grad)):
            clear()
            module[:3](batch).square().mean().backward()  # the last layer gets no gradient
        adam.step(rate)
        reference.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)


def test_without_gradients_nothing_changes() -> None:
    module = network()
    before = [each.clone() for each in module.parameters()]
    Adam(list(module.parameters())).step(1.0)
    assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


def test_a_training_does_not_load_the_compiler() -> None:
    command = [sys.executable, "-c", TRAINING]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"

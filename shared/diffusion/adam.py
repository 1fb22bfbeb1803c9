"""Adam without PyTorch's compiler: `torch.optim` imports it at the first step, 1.5 s of processor time in a process."""

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """The optimizer Adam on float32 parameters of one device; equal to `torch.optim.Adam(fused=True)` in each bit.

    Parameters without a gradient stay as they are.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(each) for each in self._parameters]
        self._squares = [torch.zeros_like(each) for each in self._parameters]
        self._steps = [torch.zeros((), device=each.device) for each in self._parameters]

    def clear_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change the parameters by one step along their gradients."""
        state = zip(self._parameters, self._means, self._squares, self._steps, strict=True)
        moved = [(each, each.grad, mean, square, count) for each, mean, square, count in state if each.grad is not None]
        if not moved:
            return
        parameters, gradients, means, squares, counts = (list(column) for column in zip(*moved, strict=True))
        torch._foreach_add_(counts, 1)
        torch._fused_adam_(
            parameters,
            gradients,
            means,
            squares,
            [],
            counts,
            lr=learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

"""Leave the least likely share of the training data out of training: normal data as it is found holds anomalies.

Source: least trimmed squares (Rousseeuw, "Least Median of Squares Regression", JASA 1984): fit to the share of the
data that the model fits best, and choose that share anew as the model improves. A denoising loss bounds the negative
log likelihood up to its weights (Ho et al., NeurIPS 2020, section 3), so a sample's loss says how likely it is, but for
two things, which are both averaged out here: how hard its noise level is, and how its noise happened to fall.
"""

import math

import torch
from torch import Tensor

LEVELS = 24  # classes of noise level, each with its own usual loss
MEMORY = 0.1  # of one more loss in a running mean


class Trimmer:
    """Remembers how each training sample fares, and says which of a batch to leave out.

    A sample's standing is the running mean of its losses, each as a multiple of the usual loss at its noise level.
    """

    def __init__(self, samples: int, share: float, sigma_range: tuple[float, float], device: torch.device):
        self._share = share
        self._low, high = (math.log(sigma) for sigma in sigma_range)
        self._width = max(high - self._low, 1e-6) / LEVELS
        self._usual = torch.zeros(LEVELS, device=device)
        self._standing = torch.zeros(samples, device=device)
        self._seen = torch.zeros(samples, device=device)
        self._level_seen = torch.zeros(LEVELS, device=device)

    @torch.no_grad()
    def note(self, rows: Tensor, sigma: Tensor, losses: Tensor) -> None:
        """Take in the `losses` (batch,) of the samples `rows` (batch,) int64 at the noise levels `sigma` (batch,)."""
        levels = ((sigma.log() - self._low) / self._width).long().clamp(0, LEVELS - 1)
        losses = losses.detach().float()
        _average_in(self._usual, self._level_seen, levels, losses)
        _average_in(self._standing, self._seen, rows, losses / self._usual[levels].clamp(min=1e-12))

    def kept(self, rows: Tensor) -> Tensor:
        """Which items of a batch to train on: (batch,) bool, false for its worst-standing share, rounded down."""
        left_out = int(self._share * len(rows))
        keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        keep[self._standing[rows].topk(left_out).indices] = False
        return keep

    def standing(self) -> Tensor:
        """Each sample's mean relative loss: (samples,), 1 for an ordinary one, 0 for one not met yet."""
        return self._standing.clone()


def _average_in(means: Tensor, seen: Tensor, at: Tensor, values: Tensor) -> None:
    """Update the running means at the indices `at` by the mean of the values given for each, in place.

    The first values count in full, the later ones by MEMORY, so that an early one is forgotten.
    """
    sums = torch.zeros_like(means).index_add_(0, at, values)
    counts = torch.zeros_like(means).index_add_(0, at, torch.ones_like(values))
    met = counts > 0
    seen += met
    rate = torch.clamp(1.0 / seen.clamp(min=1), min=MEMORY)
    means.copy_(torch.where(met, torch.lerp(means, sums / counts.clamp(min=1), rate), means))

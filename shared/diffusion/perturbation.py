"""Random subsets and perturbed copies of normal vectors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.diffusion.schedules import log_uniform_sigmas


@dataclass(frozen=True, slots=True)
class InputLayout:
    """Columns of a head's inputs that do not hold values.

    Attributes:
        masked: Number of values with a mask. The mask follows the values: 1 for an observed value, 0 for a missing one,
            which is 0 itself. 0: there is no mask.
        modes: Number of columns at the end that one-hot encode the operating mode. 0: there are no modes.
    """

    masked: int = 0
    modes: int = 0


PLAIN = InputLayout()
MAX_HIDDEN_SHARE = 0.8
SWAPPED_SHARE = 0.2  # of the perturbed vectors, which get the mode of another row


def subsample(vectors: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Return at most `limit` rows, drawn without replacement; all rows in order if there are no more."""
    if len(vectors) <= limit:
        return vectors
    return vectors[torch.randperm(len(vectors), generator=generator)[:limit].to(vectors.device)]


def perturb(
    normals: Tensor, count: int, generator: torch.Generator, layout: InputLayout = PLAIN
) -> tuple[Tensor, Tensor]:
    """Return `count` vectors made from random normals, and the rows (count,) that they were made from.

    Equal shares of the vectors are:

    - unchanged,
    - changed by isotropic noise,
    - changed by noise in some coordinates,
    - changed by resampling some coordinates from their marginals,
    - rescaled.

    Noise levels, shares of coordinates and factors are log-uniform; noise levels span two decades. With a mask in the
    `layout`, half of the vectors then lose more values, down to one. With modes, SWAPPED_SHARE of the vectors get the
    mode of another row.
    """
    if layout == PLAIN:
        return _perturb_values(normals, count, generator)
    width = layout.masked or normals.shape[1] - layout.modes
    values, rows = _perturb_values(normals[:, :width], count, generator)
    mask, modes = normals[rows, width : width + layout.masked], normals[rows, width + layout.masked :]
    if layout.masked:
        mask = _hide_more(mask, generator)
        values = values * mask
    if layout.modes:
        others = torch.randint(len(normals), (count,), generator=generator)
        swapped = torch.rand((count, 1), generator=generator) < SWAPPED_SHARE
        modes = torch.where(swapped.to(modes.device), normals[others.to(modes.device), -layout.modes :], modes)
    return torch.cat([values, mask, modes], dim=1), rows


def _hide_more(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mask (count, dim) of 0 and 1 with more zeros in half of its rows; each row keeps at least one 1."""
    count, dim = mask.shape
    share = log_uniform_sigmas(count, (1.0 / (dim + 1), MAX_HIDDEN_SHARE), generator=generator).unsqueeze(1)
    chosen = torch.rand((count, 1), generator=generator) < 0.5
    hidden = (torch.rand((count, dim), generator=generator) < share) & chosen
    fewer = mask * ~hidden.to(mask.device)
    return torch.where(fewer.sum(dim=1, keepdim=True) > 0, fewer, mask)


def _perturb_values(normals: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    dim = normals.shape[1]
    rows = torch.randint(len(normals), (count,), generator=generator)
    kinds = torch.randint(5, (count, 1), generator=generator)
    sigma = log_uniform_sigmas(count, (0.05, 5.0), generator=generator).unsqueeze(1)
    noise = sigma * torch.randn((count, dim), generator=generator)
    share = log_uniform_sigmas(count, (1.0 / dim, 1.0), generator=generator).unsqueeze(1)
    touched = torch.rand((count, dim), generator=generator) < share
    others = torch.randint(len(normals), (count, dim), generator=generator)
    factor = log_uniform_sigmas(count, (0.2, 8.0), generator=generator).unsqueeze(1)
    device = normals.device
    rows, kinds, noise, touched = (tensor.to(device) for tensor in (rows, kinds, noise, touched))
    base = normals[rows]
    marginals = normals[others.to(device), torch.arange(dim, device=device)]
    out = base.clone()
    out = torch.where(kinds == 1, base + noise, out)
    out = torch.where((kinds == 2) & touched, base + math.sqrt(4.0) * noise, out)
    out = torch.where((kinds == 3) & touched, marginals, out)
    out = torch.where(kinds == 4, base * factor.to(device), out)
    return out, rows

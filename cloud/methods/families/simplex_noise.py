"""Simplex noise: smooth random fields, summed over octaves.

Source: Perlin's simplex noise in the formulation of Gustavson ("Simplex noise demystified", 2005), summed as in Wyatt
et al., "AnoDDPM" (CVPR workshops 2022), section 3.2: each octave has half the wavelength of the previous one and 0.8 of
its amplitude.
"""

import math

import torch
from torch import Tensor

OCTAVES = 4
PERSISTENCE = 0.8  # amplitude of an octave relative to the previous one
TABLE_SIZE = 256  # entries of a permutation table; the period of the noise
DIRECTIONS = 12  # gradient directions
_SKEW, _UNSKEW = (math.sqrt(3.0) - 1.0) / 2.0, (3.0 - math.sqrt(3.0)) / 6.0
_SQUARE_RADIUS = 0.5  # squared distance at which the contribution of a corner ends
# Exact for a sum of (square radius - r^2)^4 times a random slope, on a lattice with cells of area 1 - 2 unskew.
_ROOT_MEAN_SQUARE = math.sqrt(math.pi / 2.0 * _SQUARE_RADIUS**10 / 90.0 / (1.0 - 2.0 * _UNSKEW))


def smooth_fields(count: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Return independent smooth fields (count, rows, columns) float32, of mean square 1 on average.

    Lines have one row. The longest wavelength is half the longer side. Octaves end at a wavelength of two cells.
    """
    wavelength = max(rows, columns) / 2.0
    down, across = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
    points = torch.stack([down.flatten(), across.flatten()], dim=1)
    total, square_size, size = torch.zeros((count, len(points))), 0.0, 1.0
    for octave in range(OCTAVES):
        length = max(wavelength / 2.0**octave, 2.0)
        offset = TABLE_SIZE * torch.rand((count, 1, 2), generator=generator)
        total += size * _simplex(points / length + offset, generator)
        square_size += size**2
        size *= PERSISTENCE
        if length <= 2.0:
            break
    return (total / math.sqrt(square_size)).reshape(count, rows, columns)


def _simplex(points: Tensor, generator: torch.Generator) -> Tensor:
    """Return one octave (fields, points) of mean square 1 at `points` (fields, points, 2).

    Each field has its own permutation table.
    """
    table = torch.stack([torch.randperm(TABLE_SIZE, generator=generator) for _ in range(len(points))])
    skewed = points + _SKEW * points.sum(dim=2, keepdim=True)
    cell = skewed.floor()
    origin = points - (cell - _UNSKEW * cell.sum(dim=2, keepdim=True))
    first = (origin[..., 0] > origin[..., 1]).float()
    middle = torch.stack([first, 1.0 - first], dim=2)  # second corner of the triangle that contains the point
    total = torch.zeros(points.shape[:2])
    for index, corner in enumerate((torch.zeros_like(middle), middle, torch.ones_like(middle))):
        delta = origin - corner + index * _UNSKEW
        angle = _hashed(table, (cell + corner).long()) * (2.0 * math.pi / DIRECTIONS)
        slope = delta[..., 0] * torch.cos(angle) + delta[..., 1] * torch.sin(angle)
        total += (_SQUARE_RADIUS - delta.square().sum(dim=2)).clamp(min=0.0) ** 4 * slope
    return total / _ROOT_MEAN_SQUARE


def _hashed(table: Tensor, corners: Tensor) -> Tensor:
    """Return the direction index (fields, points) of lattice corners (fields, points, 2).

    An index results from two look-ups in the permutation table of the field.
    """
    inner = table.gather(1, corners[..., 1] % TABLE_SIZE)
    return (table.gather(1, (corners[..., 0] + inner) % TABLE_SIZE) % DIRECTIONS).float()

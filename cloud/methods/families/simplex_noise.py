"""Simplex noise: smooth random fields, summed over octaves.

Source: Perlin's simplex noise in Gustavson's formulation ("Simplex noise demystified", 2005), summed as in Wyatt et
al., "AnoDDPM" (CVPR workshops 2022), section 3.2: each octave has half the wavelength of the last and 0.8 of its size.
"""

import math

import torch
from torch import Tensor

OCTAVES = 4
PERSISTENCE = 0.8
TABLE = 256
DIRECTIONS = 12
_SKEW, _UNSKEW = (math.sqrt(3.0) - 1.0) / 2.0, (3.0 - math.sqrt(3.0)) / 6.0
_REACH = 0.5  # square distance at which a corner's influence ends
# Of a sum of (reach - r^2)^4 times a random slope over a lattice with cells of area 1 - 2 unskew, exactly.
_ROOT_MEAN_SQUARE = math.sqrt(math.pi / 2.0 * _REACH**10 / 90.0 / (1.0 - 2.0 * _UNSKEW))


def smooth_fields(count: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Independent fields (count, rows, columns) float32 of mean square 1 over many; `rows` is 1 for lines.

    The longest wave is half the longer side, and octaves end where waves would be shorter than two cells.
    """
    wavelength = max(rows, columns) / 2.0
    down, across = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
    points = torch.stack([down.flatten(), across.flatten()], dim=1)
    total, square_size, size = torch.zeros((count, len(points))), 0.0, 1.0
    for octave in range(OCTAVES):
        length = max(wavelength / 2.0**octave, 2.0)
        offset = TABLE * torch.rand((count, 1, 2), generator=generator)
        total += size * _simplex(points / length + offset, generator)
        square_size += size**2
        size *= PERSISTENCE
        if length <= 2.0:
            break
    return (total / math.sqrt(square_size)).reshape(count, rows, columns)


def _simplex(points: Tensor, generator: torch.Generator) -> Tensor:
    """One octave (fields, points) of mean square 1 at `points` (fields, points, 2), each field with its own table."""
    table = torch.stack([torch.randperm(TABLE, generator=generator) for _ in range(len(points))])
    skewed = points + _SKEW * points.sum(dim=2, keepdim=True)
    cell = skewed.floor()
    origin = points - (cell - _UNSKEW * cell.sum(dim=2, keepdim=True))
    first = (origin[..., 0] > origin[..., 1]).float()
    middle = torch.stack([first, 1.0 - first], dim=2)  # which of the two triangles of the cell
    total = torch.zeros(points.shape[:2])
    for index, corner in enumerate((torch.zeros_like(middle), middle, torch.ones_like(middle))):
        apart = origin - corner + index * _UNSKEW
        angle = _hashed(table, (cell + corner).long()) * (2.0 * math.pi / DIRECTIONS)
        slope = apart[..., 0] * torch.cos(angle) + apart[..., 1] * torch.sin(angle)
        total += (_REACH - apart.square().sum(dim=2)).clamp(min=0.0) ** 4 * slope
    return total / _ROOT_MEAN_SQUARE


def _hashed(table: Tensor, corners: Tensor) -> Tensor:
    """A direction's number for each lattice corner (fields, points, 2), by two look-ups in the field's table."""
    inner = table.gather(1, corners[..., 1] % TABLE)
    return (table.gather(1, (corners[..., 0] + inner) % TABLE) % DIRECTIONS).float()

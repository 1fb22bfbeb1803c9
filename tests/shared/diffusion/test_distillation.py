"""Distillation of a teacher into the screener's head."""

import torch

from shared.diffusion.distillation import DistillationSettings, distill_head
from shared.diffusion.perturbation import InputLayout, perturb
from shared.diffusion.time_estimation import TimeEstimationHead


def masked_normals(generator: torch.Generator, count: int = 500) -> torch.Tensor:
    """Rows of four values, their mask, and one of two modes."""
    mask = (torch.rand((count, 4), generator=generator) < 0.8).float()
    mask[:, 0] = 1
    mode = torch.nn.functional.one_hot(torch.randint(2, (count,), generator=generator), 2).float()
    return torch.cat([torch.randn((count, 4), generator=generator) * mask, mask, mode], dim=1)


def test_perturbing_keeps_the_mask_a_mask_and_the_mode_a_mode(generator: torch.Generator) -> None:
    normals = masked_normals(generator)
    out, rows = perturb(normals, 4000, generator, InputLayout(masked=4, modes=2))
    values, mask, mode = out[:, :4], out[:, 4:8], out[:, 8:]
    assert (mode.sum(dim=1) == 1).all()
    assert 0.05 < (mode != normals[rows, 8:]).any(dim=1).float().mean() < 0.15
    assert ((mask == 0) | (mask == 1)).all()
    assert (mask <= normals[rows, 4:8]).all()
    assert (mask.sum(dim=1) >= 1).all()
    assert (values[mask == 0] == 0).all()
    hidden = (mask < normals[rows, 4:8]).any(dim=1).float().mean()
    assert 0.2 < hidden < 0.5
    assert (values != normals[rows, :4] * mask).any(dim=1).float().mean() > 0.6


def test_a_plain_layout_draws_what_it_always_drew() -> None:
    normals = torch.randn((100, 5), generator=torch.Generator().manual_seed(0))
    plain, _ = perturb(normals, 300, torch.Generator().manual_seed(1))
    named, _ = perturb(normals, 300, torch.Generator().manual_seed(1), InputLayout())
    assert torch.equal(plain, named)


def test_a_head_learns_what_the_teacher_says_of_rows_with_gaps(generator: torch.Generator) -> None:
    """The teacher scores the observed values; a head that ignores the mask could not distinguish gaps."""
    normals = masked_normals(generator, 1000)

    def teacher(inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (inputs[:, :4].square().sum(1) / inputs[:, 4:8].sum(1)).log1p()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = TimeEstimationHead(10, (64, 64))
    settings = DistillationSettings(steps=800, batch_size=256, perturbed=20_000)
    distill_head(
        head, normals, settings=settings, generator=generator, teacher=teacher, layout=InputLayout(masked=4, modes=2)
    )
    one = torch.tensor([[2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    all_four = torch.tensor([[2.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    with torch.no_grad():
        assert head(one) > head(all_four) + 0.3

import torch

from shared.diffusion.trimming import Trimmer

CPU = torch.device("cpu")


def test_a_sample_stands_by_its_loss_against_others_of_its_noise_level(generator: torch.Generator) -> None:
    trimmer = Trimmer(100, 0.1, (0.1, 10.0), CPU)
    for _ in range(200):
        rows = torch.randint(100, (64,), generator=generator)
        sigma = torch.where(torch.rand(64, generator=generator) < 0.5, 0.2, 8.0)
        usual = torch.where(sigma < 1, 50.0, 0.1)  # losses of one level are far above those of the other
        odd = torch.where(rows < 10, 3.0, 1.0)  # the first ten samples fare worse at both
        trimmer.note(rows, sigma, usual * odd * (0.5 + torch.rand(64, generator=generator)))
    assert trimmer.standing()[:10].min() > trimmer.standing()[10:].max()
    assert not trimmer.kept(torch.arange(100))[:10].any()
    assert trimmer.kept(torch.arange(100))[10:].all()


def test_the_share_left_out_of_a_batch_is_rounded_down() -> None:
    trimmer = Trimmer(40, 0.1, (0.1, 10.0), CPU)
    trimmer.note(torch.arange(40), torch.ones(40), torch.arange(40.0))
    assert trimmer.kept(torch.arange(40)).sum() == 36
    assert trimmer.kept(torch.arange(19)).sum() == 18
    assert trimmer.kept(torch.arange(9)).all()


def test_an_early_impression_is_forgotten() -> None:
    trimmer = Trimmer(4, 0.25, (0.1, 10.0), CPU)
    rows, sigma = torch.arange(4), torch.ones(4)
    trimmer.note(rows, sigma, torch.tensor([9.0, 1.0, 1.0, 1.0]))
    assert not trimmer.kept(rows)[0]
    for _ in range(60):
        trimmer.note(rows, sigma, torch.tensor([1.0, 1.0, 1.0, 2.0]))
    assert trimmer.kept(rows).tolist() == [True, True, True, False]


def test_rows_drawn_twice_count_by_their_mean() -> None:
    trimmer = Trimmer(2, 0.0, (0.1, 10.0), CPU)
    trimmer.note(torch.tensor([0, 0, 1]), torch.ones(3), torch.tensor([1.0, 3.0, 2.0]))
    assert torch.allclose(trimmer.standing(), torch.ones(2))


def test_losses_of_zero_leave_finite_standings() -> None:
    trimmer = Trimmer(3, 0.4, (0.1, 10.0), CPU)
    trimmer.note(torch.arange(3), torch.tensor([1e-9, 1.0, 1e9]), torch.zeros(3))
    assert torch.isfinite(trimmer.standing()).all()

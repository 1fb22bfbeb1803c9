"""A small Gaussian whose denoiser and score are known in closed form."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # for code that keeps PyTorch's initial weights
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def mean() -> Tensor:
    return torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


@pytest.fixture
def covariance() -> Tensor:
    return torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, -0.2], [0.0, -0.2, 0.3]], dtype=torch.float64)

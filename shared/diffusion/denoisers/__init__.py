"""Denoisers: functions D(x, sigma) that return the expected clean sample E[x0 | x], exact, adapted or trained."""

from shared.diffusion.denoisers.contract import Denoiser, epsilon, score, velocity
from shared.diffusion.denoisers.gaussian import GaussianDenoiser, time_posterior
from shared.diffusion.denoisers.image import ImageDenoiser
from shared.diffusion.denoisers.parametrisations import from_epsilon, from_score, from_v, from_x0, nearest_timesteps
from shared.diffusion.denoisers.preconditioning import PreconditionedDenoiser, SigmaEmbedding, initialise
from shared.diffusion.denoisers.vector import ResidualBlock, VectorDenoiser
from shared.diffusion.denoisers.window import WindowDenoiser

__all__ = [
    "Denoiser",
    "GaussianDenoiser",
    "ImageDenoiser",
    "PreconditionedDenoiser",
    "ResidualBlock",
    "SigmaEmbedding",
    "VectorDenoiser",
    "WindowDenoiser",
    "epsilon",
    "from_epsilon",
    "from_score",
    "from_v",
    "from_x0",
    "initialise",
    "nearest_timesteps",
    "score",
    "time_posterior",
    "velocity",
]

"""Denoisers: functions D(x, sigma) that return the expected clean sample E[x0 | x]."""

from shared.diffusion.denoisers.contract import Denoiser, score
from shared.diffusion.denoisers.image import ImageDenoiser
from shared.diffusion.denoisers.preconditioning import PreconditionedDenoiser, SigmaEmbedding, initialise
from shared.diffusion.denoisers.vector import ResidualBlock, VectorDenoiser
from shared.diffusion.denoisers.window import WindowDenoiser

__all__ = [
    "Denoiser",
    "ImageDenoiser",
    "PreconditionedDenoiser",
    "ResidualBlock",
    "SigmaEmbedding",
    "VectorDenoiser",
    "WindowDenoiser",
    "initialise",
    "score",
]

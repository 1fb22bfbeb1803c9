"""The diffusion core: schedules, denoisers, samplers, time estimation and their training. The one part with torch."""

from shared.diffusion.denoisers import (
    Denoiser,
    GaussianDenoiser,
    ImageDenoiser,
    PreconditionedDenoiser,
    VectorDenoiser,
    WindowDenoiser,
    epsilon,
    from_epsilon,
    from_score,
    from_v,
    from_x0,
    score,
    time_posterior,
    velocity,
)
from shared.diffusion.distillation import (
    DistillationSettings,
    InputLayout,
    Perturbation,
    Teacher,
    distill_head,
    local_teacher,
    subsample,
)
from shared.diffusion.neighbours import nearest_distances
from shared.diffusion.noise import NoiseSource, noise_like, seeded_noise
from shared.diffusion.samplers import Sampler, sample_ddim, sample_ddpm, sample_dpm_solver, sample_heun
from shared.diffusion.time_estimation import TimeEstimationHead, log_posterior_mean
from shared.diffusion.training import OptimizerSettings, fit_denoiser, train, train_denoiser

__all__ = [
    "Denoiser",
    "DistillationSettings",
    "GaussianDenoiser",
    "ImageDenoiser",
    "InputLayout",
    "NoiseSource",
    "OptimizerSettings",
    "Perturbation",
    "PreconditionedDenoiser",
    "Sampler",
    "Teacher",
    "TimeEstimationHead",
    "VectorDenoiser",
    "WindowDenoiser",
    "distill_head",
    "epsilon",
    "fit_denoiser",
    "from_epsilon",
    "from_score",
    "from_v",
    "from_x0",
    "local_teacher",
    "log_posterior_mean",
    "nearest_distances",
    "noise_like",
    "sample_ddim",
    "sample_ddpm",
    "sample_dpm_solver",
    "sample_heun",
    "score",
    "seeded_noise",
    "subsample",
    "time_posterior",
    "train",
    "train_denoiser",
    "velocity",
]

"""Fusion members for images and the FP32 screener, compared by image AUROC on development images.

The development images (`benchmarks/image_tasks.py`) are normal images with drawn defects: circuit boards of families
that were not trained on, solar cells, crops of photographs, and frames of a camera. No labelled part of a benchmark set
is used, and the drawing shares no code with the corruption that `local_corruption` is trained on. Figures are group
means of each method, each fusion and the screener.
"""

from typing import Any

import numpy as np
import torch

from benchmarks.group_means import group_means
from benchmarks.image_tasks import GROUPS, ImageTask, tasks
from cloud.methods.encoders import ImageEncoder
from cloud.methods.fusion import Fusion
from cloud.metrics import separation
from cloud.modalities import cloud_modality
from cloud.serving.analysis import FUSED
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.encoders import fit_image_encoder
from cloud.training.modalities.image import TrainingImage
from cloud.training.screeners import image_screener
from cloud.training.settings import TrainingSettings
from cloud.training.teachers import patch_teacher
from shared.bundle import InputSpec
from shared.diffusion.distillation import distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.modalities import fit_preprocessor
from shared.modality import Modality

METHODS = ("score_norm", "local_corruption", "knn")
FUSIONS = (("score_norm", "local_corruption"), ("knn", "local_corruption"), METHODS)
HELD_OUT = 40


def run(quick: bool = False) -> dict[str, Any]:
    """Return mean image AUROC by method and group; `quick` uses one task per group."""
    torch.set_num_threads(1)
    return group_means(GROUPS, tasks, lambda group, number, task: figures_of(task), quick=quick)


def figures_of(task: ImageTask) -> dict[str, float]:
    """Return AUROC of each method, each fusion and the screener on one task."""
    train, held_out = task.train[:-HELD_OUT], task.train[-HELD_OUT:]
    spec = InputSpec(image_height=train.shape[1], image_width=train.shape[2])
    preprocessor = fit_preprocessor(Modality.IMAGE, train, spec)
    generator = torch.Generator().manual_seed(0)
    settings = TrainingSettings()
    encoder, patches = fit_image_encoder(train, generator=generator, dim=settings.image.feature_dim)
    fused = cloud_modality(Modality.IMAGE).default_methods
    options = AnalysisOptions(methods=METHODS, fused=fused, device="cpu")
    analysis = fit_analysis(preprocessor, encoder, train, held_out, options).analysis
    calibration, good, defective = (analysis.score(images) for images in (held_out, task.good, task.defective))
    figures = {name: separation(good[name], defective[name]) for name in (*METHODS, FUSED)}
    for members in FUSIONS:
        fusion = Fusion.fit({name: calibration[name] for name in METHODS}, members=members)
        figures[" + ".join(members)] = separation(fusion.statistic(good), fusion.statistic(defective))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = TimeEstimationHead(patches.shape[1], TrainingImage.hidden)
    distill_head(
        head,
        patches[torch.randperm(len(patches), generator=generator)[: settings.image.patches]],
        settings=settings.distillation(TrainingImage.distillation),
        generator=generator,
        teacher=patch_teacher(analysis),
    )
    assert isinstance(encoder, ImageEncoder)
    screener = image_screener(encoder, head, train, analysis.corruption_head, analysis.opinion_weights)
    with torch.inference_mode():
        screened = [
            np.array([float(screener(torch.from_numpy(image[np.newaxis]))[0]) for image in images])
            for images in (task.good, task.defective)
        ]
    return {**figures, "screener": separation(*screened)}

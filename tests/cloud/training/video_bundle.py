"""Bundle of five small videos of a room, for tests of devices and of the evaluation."""

from pathlib import Path

import pytest

from cloud.methods import fit_context
from shared.diffusion.training import OptimizerSettings
from shared.modality import Modality
from tests.cloud.training.conftest import Trained, train
from tests.cloud.training.video_files import frames, write_video

SETTINGS = {
    "analyzers": ("knn", "time_estimation"),
    "head": {"steps": 200, "batch_size": 128, "perturbed": 4000},
    "video": {"height": 64, "width": 96, "relit_share": 0.1, "max_clips": 60, "max_held_out": 60},
    "quantisation": {"images": 10},
    "tolerances": {"rank_correlation": 0.5, "label_agreement": 0.5},
}


def write_normal_videos(folder: Path) -> Path:
    """Write the videos that the bundle is trained on."""
    for hour in range(5):
        write_video(folder / f"{hour}.avi", frames(150, seed=hour))
    return folder


def train_on_videos(folder: Path) -> Trained:
    """Write the videos below `folder`, and train a bundle on them or read the stored one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_context, "TRAINING", OptimizerSettings(steps=100, batch_size=64))
        return train(write_normal_videos(folder / "room"), Modality.VIDEO, **SETTINGS)

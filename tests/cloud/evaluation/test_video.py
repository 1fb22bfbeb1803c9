"""The video benchmark's unit on tiny videos, and its naive baseline."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cloud.analyzers import workshop
from cloud.encoders import VideoEncoder
from cloud.evaluation.video import score_video
from cloud.evaluation.video_baseline import PlaceNeighbours
from cloud.training import TrainingSettings
from shared.diffusion import OptimizerSettings
from shared.errors import DataError
from tests.cloud.training.video_files import frames, write_labels, write_video

WALK = range(60, 90)


@pytest.fixture(scope="module", autouse=True)
def short_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop, "TRAINING", OptimizerSettings(steps=100, batch_size=64))
        yield


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five normal videos, and one in which a box walks through."""
    folder = tmp_path_factory.mktemp("camera")
    for hour in range(5):
        write_video(folder / "train" / f"{hour}.avi", frames(150, seed=hour))
    write_video(folder / "eval" / "x.avi", frames(150, box=WALK, seed=9))
    write_labels(folder / "eval" / "x_labels.csv", [int(index in WALK) for index in range(150)])
    return folder


def test_a_walk_through_the_room_is_found_by_every_method(camera: Path) -> None:
    head = {"steps": 200, "batch_size": 128, "perturbed": 4000}
    settings = TrainingSettings.model_validate(
        {
            "analyzers": ("knn", "time_estimation"),
            "head": head,
            "video": {"height": 64, "width": 96, "relit_share": 0.1},
            "quantisation": {"images": 10},
            "tolerances": {"rank_correlation": 0.5, "label_agreement": 0.5},
        }
    )
    figures, facts = score_video(camera, settings)
    assert facts["test_samples"] == 150
    assert facts["anomalies"] == len(WALK)
    methods = ("fused", "screener_fp32", "screener_int8_openvino", "knn", "baseline_knn", "cascade_10")
    assert all(figures[name]["auroc"] > 0.85 for name in methods), {name: figures[name]["auroc"] for name in methods}


def test_videos_without_labels_are_said_to_lack_them(camera: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(camera / "train")
    with pytest.raises(DataError, match="has a table of labels"):
        score_video(tmp_path, TrainingSettings())


def test_the_baseline_compares_a_place_with_itself_alone() -> None:
    torch.set_num_threads(1)
    left = frames(80, seed=0).reshape(40, 2, 64, 96, 3)
    left[:, :, 20:44, 4:28] = (240, 60, 30)  # a box that always stands there
    encoder = VideoEncoder.fit(left, generator=torch.Generator().manual_seed(0), dims=(16, 8))[0]
    baseline = PlaceNeighbours.fit(encoder, left)
    moved = np.ascontiguousarray(left[:5, :, :, ::-1])
    assert baseline.score(moved).min() > baseline.score(left[5:]).max()

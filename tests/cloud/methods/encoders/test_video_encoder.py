"""Patch vectors of clips: appearance and motion, whitened at each place."""

import numpy as np
import pytest
import torch
from safetensors.torch import load

from cloud.methods.clip_pooling import clip_scores
from cloud.methods.encoders import encoder_bytes
from cloud.methods.encoders.video import VideoEncoder
from cloud.training.encoders import fit_video_encoder
from cloud.training.encoders.video import MOTION_WEIGHT, whitening_by_position
from cloud.training.screeners.video import VideoScreener
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.errors import BundleError, DataError
from tests.cloud.training.video_files import frames

DIMS = (16, 8)


def clips(count: int, seed: int, *, moving: bool = False) -> np.ndarray:
    """Return clips (count, 2, 64, 96, 3) of the test room; with `moving`, a box crosses it."""
    pictures = frames(2 * count, box=range(2 * count) if moving else range(0), seed=seed)
    return pictures.reshape(count, 2, *pictures.shape[1:])


@pytest.fixture(scope="module")
def encoder() -> VideoEncoder:
    torch.set_num_threads(1)
    return fit_video_encoder(clips(60, 0), generator=torch.Generator().manual_seed(0), dims=DIMS)[0]


def test_each_place_is_whitened_separately(encoder: VideoEncoder) -> None:
    vectors = encoder.encode(clips(60, 0))
    assert vectors.shape == (60, 6, sum(DIMS))
    assert encoder.grid == (2, 3)
    assert vectors.mean(dim=0).abs().max() < 0.3  # mean at each place, not over all places
    spread = vectors.std(dim=(0, 1))
    assert 0.3 < spread[: DIMS[0]].mean() < 1.1
    assert 0.3 * MOTION_WEIGHT < spread[DIMS[0] :].mean() < 1.1 * MOTION_WEIGHT


def test_a_new_object_is_far_from_the_normals_at_its_place(encoder: VideoEncoder) -> None:
    normal, strange = (encoder.encode(clips(20, 1, moving=moving)).norm(dim=2) for moving in (False, True))
    assert strange.amax(dim=1).min() > normal.amax(dim=1).max()


def test_motion_is_the_difference_to_the_previous_frames(encoder: VideoEncoder) -> None:
    still = clips(3, 2, moving=True)
    still[:, 0] = still[:, 1]
    motion = encoder.features(torch.from_numpy(still))[1]
    torch.testing.assert_close(motion, torch.zeros_like(motion), atol=1e-4, rtol=0)
    turned = clips(3, 2, moving=True)
    forward, backward = (
        encoder.features(torch.from_numpy(np.ascontiguousarray(x)))[1] for x in (turned, turned[:, ::-1])
    )
    torch.testing.assert_close(forward, -backward, atol=1e-4, rtol=1e-4)


def test_a_clip_does_not_depend_on_its_batch(encoder: VideoEncoder) -> None:
    batch = clips(5, 3)
    alone = torch.cat([encoder.encode(batch[index : index + 1]) for index in range(5)])
    torch.testing.assert_close(encoder.encode(batch), alone, rtol=1e-3, atol=1e-3)


def test_graph_and_analyzers_get_equal_vectors(encoder: VideoEncoder) -> None:
    batch = clips(3, 4)
    maps = encoder(torch.from_numpy(batch))
    assert maps.shape == (3, sum(DIMS), 2, 3)
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), encoder.encode(batch), rtol=1e-4, atol=1e-4)


def test_the_screener_and_the_head_give_equal_patch_scores(encoder: VideoEncoder) -> None:
    head = TimeEstimationHead(sum(DIMS), (16, 16))
    batch = clips(3, 5)
    score, anomaly_map = VideoScreener(encoder, head)(torch.from_numpy(batch))
    expected = head(encoder.encode(batch).flatten(0, 1)).view(3, 2, 3).detach()
    torch.testing.assert_close(anomaly_map, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(score, clip_scores(expected), rtol=1e-4, atol=1e-4)


def test_a_few_anomalies_in_the_normals_keep_large_distances() -> None:
    mixed = np.concatenate([clips(98, 6), clips(2, 6, moving=True)])
    encoder, vectors = fit_video_encoder(mixed, generator=torch.Generator().manual_seed(0), dims=DIMS)
    assert len(vectors) == 6 * 100
    lengths = encoder.encode(mixed).norm(dim=2).amax(dim=1)
    assert lengths[98:].min() > lengths[:98].max()


def test_a_constant_place_can_be_whitened() -> None:
    values = torch.randn(50, 2, 4, dtype=torch.float64)
    values[:, 1] = 3.0
    mean, matrices = whitening_by_position(values, 4)
    assert torch.isfinite(matrices).all()
    changed = (matrices[1] @ (values[0, 1] + 5.0 - mean[1])).norm()
    assert changed > 3
    assert torch.isfinite(whitening_by_position(torch.zeros(3, 2, 4, dtype=torch.float64), 4)[1]).all()


def test_a_stored_encoder_gives_the_same_vectors(encoder: VideoEncoder) -> None:
    again = VideoEncoder.from_state(load(encoder_bytes(encoder)))
    torch.testing.assert_close(again.encode(clips(2, 7)), encoder.encode(clips(2, 7)))
    with pytest.raises(BundleError, match="video encoder"):
        VideoEncoder.from_state({"size": torch.tensor([64, 64, 2, 16, 16])})


def test_unsupported_shapes_are_refused(encoder: VideoEncoder) -> None:
    with pytest.raises(DataError, match="multiples of 32"):
        VideoEncoder(64, 100)
    with pytest.raises(DataError, match="clip_frames"):
        VideoEncoder(64, 96, 1)
    with pytest.raises(DataError, match="encoder needs"):
        encoder.encode(clips(1, 0)[:, :1])
    with pytest.raises(DataError, match="two clips or more"):
        fit_video_encoder(clips(1, 0), generator=torch.Generator())
    assert encoder.encode(clips(1, 0)[:0]).shape == (0, 6, sum(DIMS))

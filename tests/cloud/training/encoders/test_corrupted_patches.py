"""Tests of the complete chain: corrupt, encode, train a head, detect an unseen kind of defect."""

import sys

import numpy as np
import pytest
import torch

from cloud.methods import DetailFeatures, Features, FitContext
from cloud.methods.defaults.local_corruption import LocalCorruption
from cloud.methods.encoders.image import PATCH_PIXELS, ImageEncoder
from cloud.training.encoders import fit_image_encoder
from cloud.training.encoders.corrupted_patches import COPIES, MARGIN_PIXELS, _Crop, corrupted_patches

SIDE = 96
SMALL_TILE = 20  # patches; crops of this size are drawn and kept like those of TILE_SIDE, and cost a quarter
SMALL_SIDE = SMALL_TILE * PATCH_PIXELS + 2 * MARGIN_PIXELS


def walls(count: int) -> np.ndarray:
    """Return images (count, height, width, 3) that are larger than a small crop."""
    height, width = SMALL_SIDE + 144, SMALL_SIDE + 320
    return np.tile(bricks(count, 0, (0, 300)), (1, height // SIDE + 1, width // SIDE + 1, 1))[:, :height, :width]


def bricks(count: int, seed: int, columns: tuple[int, int]) -> np.ndarray:
    """Return crops (count, SIDE, SIDE, 3) of a brick wall from the given columns of the photograph."""
    from skimage import data

    wall, generator = data.brick(), np.random.default_rng(seed)
    tops, lefts = generator.integers(0, 512 - SIDE, count), generator.integers(columns[0], columns[1] - SIDE, count)
    crops = np.stack([wall[top : top + SIDE, left : left + SIDE] for top, left in zip(tops, lefts, strict=True)])
    return np.repeat(crops[..., np.newaxis], 3, axis=3)


@pytest.fixture(scope="module")
def trained() -> tuple[ImageEncoder, LocalCorruption]:
    torch.set_num_threads(1)
    train = bricks(40, 0, (0, 300))
    encoder, _ = fit_image_encoder(train, generator=torch.Generator().manual_seed(0), dim=96)
    corrupted = corrupted_patches(encoder, train, seed=0, max_pixels=6 * train[..., 0].size)  # 6 copies of each image
    context = FitContext(seed=0, effort=0.2, corrupted=corrupted)
    analyzer = LocalCorruption()
    analyzer.fit(as_features(encoder, train), context)
    return encoder, analyzer


def as_features(encoder: ImageEncoder, images: np.ndarray) -> Features:
    vectors, details = encoder.views(images)
    return DetailFeatures(vectors, grid=encoder.grid, details=details)


def score(trained: tuple[ImageEncoder, LocalCorruption], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoder, analyzer = trained
    output = analyzer.score(as_features(encoder, images))
    assert output.maps is not None
    return output.scores.numpy(), output.maps.numpy()


def test_a_stain_is_detected_and_located(trained: tuple[ImageEncoder, LocalCorruption]) -> None:
    good = bricks(20, 1, (300, 512))
    stained = good.astype(np.float32)
    down, across = np.mgrid[:SIDE, :SIDE]
    weight = np.exp(-((down - 36) ** 2 + (across - 60) ** 2) / (2 * 6.0**2))[..., np.newaxis]
    stained = (stained * (1 - 0.5 * weight)).astype(np.uint8)
    normal, _ = score(trained, good)
    scores, maps = score(trained, stained)
    assert (scores[:, np.newaxis] > normal).mean() > 0.9
    row, column = np.unravel_index(maps.mean(axis=0).argmax(), maps.shape[1:])
    assert abs(row * 8 + 4 - 36) <= 12
    assert abs(column * 8 + 4 - 60) <= 12


def test_a_seed_gives_reproducible_touched_and_untouched_patches(trained: tuple[ImageEncoder, LocalCorruption]) -> None:
    encoder, _ = trained
    images = bricks(4, 2, (0, 300))
    first, second = (corrupted_patches(encoder, images, seed=3) for _ in range(2))
    torch.testing.assert_close(first.touched, second.touched)
    torch.testing.assert_close(first.untouched, second.untouched)
    originals = encoder.views(images).details.half().flatten(0, 1)
    known = (torch.cdist(first.untouched.float(), originals.float()).amin(dim=1) < 0.05).float().mean()
    strange = (torch.cdist(first.touched.float(), originals.float()).amin(dim=1) > 0.5).float().mean()
    assert known > 4 / (4 * COPIES + 4)  # originals and patches far from any corruption
    assert strange > 0.95


def test_blank_scans_can_be_trained_on() -> None:
    blank = np.full((6, SIDE, SIDE, 3), 255, dtype=np.uint8)
    encoder, _ = fit_image_encoder(blank, generator=torch.Generator().manual_seed(0), dim=16)
    assert encoder.bilevel
    assert len(corrupted_patches(encoder, blank, seed=0).touched) > 0


def test_compression_noise_does_not_reveal_copies_of_scans() -> None:
    """Check that the encoder ignores the grey JPEG noise around edges, which thresholded copies lack."""
    import cv2

    generator = np.random.default_rng(0)
    blocks = np.roll(np.kron(generator.integers(0, 2, (4, 3, 3)), np.ones((1, 32, 32))), (3, 3), (1, 2))
    clean = np.repeat((blocks * 255).astype(np.uint8)[..., np.newaxis], 3, axis=3)
    files = [cv2.imencode(".jpg", scan, [cv2.IMWRITE_JPEG_QUALITY, 90])[1] for scan in clean]
    stored = np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR) for file in files])
    assert (stored != clean).any()
    encoder, _ = fit_image_encoder(stored, generator=torch.Generator().manual_seed(0), dim=16)
    torch.testing.assert_close(encoder.encode(stored), encoder.encode(clean))
    again = ImageEncoder.from_state(encoder.state())
    torch.testing.assert_close(again.encode(stored), encoder.encode(clean))


def test_a_crop_of_a_large_image_has_the_patches_of_the_whole() -> None:
    """Check at every edge and corner that only patches without influence from outside the crop are kept."""
    torch.set_num_threads(1)
    wall = walls(1)[0]
    encoder, _ = fit_image_encoder(wall[np.newaxis], generator=torch.Generator().manual_seed(0), dim=8)
    whole = encoder.views(wall[np.newaxis]).details.view(*encoder.grid, -1)
    sides, generator, seen = (SMALL_SIDE, SMALL_SIDE), np.random.default_rng(0), set()
    for _ in range(4):
        crop = _Crop.drawn(wall.shape[:2], sides, generator)
        rows, columns = crop.pixels
        smaller = encoder.resized(*sides)
        details = smaller.views(wall[np.newaxis, rows, columns].copy()).details[0]
        kept = crop.kept(smaller.grid)
        patches = [slice(part.start // PATCH_PIXELS, part.stop // PATCH_PIXELS) for part in crop.pixels]
        torch.testing.assert_close(details[kept], whole[*patches].flatten(0, 1)[kept], rtol=1e-3, atol=1e-3)
        assert (SMALL_TILE * PATCH_PIXELS / SMALL_SIDE) ** 2 - 1e-6 <= kept.float().mean() < 1.0
        seen.add((rows.start, columns.start))
    assert len(seen) > 1


def test_large_images_are_corrupted_crop_by_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    module = sys.modules[corrupted_patches.__module__]
    monkeypatch.setattr(module, "TILE_SIDE", SMALL_TILE)
    monkeypatch.setattr(module, "MAX_SIDE_PIXELS", SMALL_SIDE)
    images = walls(2)
    encoder, _ = fit_image_encoder(images, generator=torch.Generator().manual_seed(0), dim=8)
    shares: list[float] = []
    patches = corrupted_patches(encoder, images, seed=0, max_pixels=1.5e5, progress=shares.append)
    assert len(patches.touched) > 100
    assert len(patches.untouched) > 1000
    assert shares == sorted(shares)
    assert shares[-1] == 1.0

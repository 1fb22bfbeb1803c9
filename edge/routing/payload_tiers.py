"""How much of an image travels: all of it while budget and link allow, less as they fill up.

Quality gives way before samples do. Which tier is next follows the budget's bucket and the queue, as adaptive streaming
follows its buffer (Huang et al., "A buffer-based approach to rate adaptation", SIGCOMM 2014): with k tiers, tier i is
taken while less than i / k of both is used up. Rows and windows are small, and always travel whole.

`features` are what the screener made of the image, its map and scores, with a preview for people. The encoder's vectors
are no smaller form: 64 numbers for each of the 6400 patches of 640 x 640 pixels are more bytes than the JPEG file.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edge.routing.budget import UploadBudget
from edge.settings import RouterSettings
from shared.crops import CONTEXT_PIXELS, min_core_pixels
from shared.errors import SampleRejected
from shared.images import encode_jpeg, resize
from shared.modality import Modality
from shared.samples import ImageCrop, Region

PREVIEW_SIDE_PIXELS, PREVIEW_QUALITY = 128, 60
MOST_CROPPED = 0.5  # of the pixels: a larger crop is hardly smaller than the whole
HOT_SHARE = 0.5  # of the map's highest value
NEWEST_WEIGHT = 0.1  # of what was just packed, in what a tier is taken to weigh


class Tier(StrEnum):
    """What travels of an image."""

    LOSSLESS = "lossless"
    JPEG = "jpeg"
    CROP = "crop"
    FEATURES = "features"


_FIRST_GUESS = {Tier.LOSSLESS: 1.0, Tier.JPEG: 0.2, Tier.CROP: 0.05, Tier.FEATURES: 0.01}


class PayloadTiers:
    """Chooses for one source, and learns what each tier weighs there."""

    def __init__(self, settings: RouterSettings, budget: UploadBudget) -> None:
        self._tiers = tuple(Tier(name) for name in settings.payloads)
        self._quality, self._budget = settings.jpeg_quality, budget
        self._weights = dict(_FIRST_GUESS)  # bytes for one of the lossless payload or the raw pixels

    def choose(self, raw_bytes: float, modality: Modality) -> Tier:
        """The tier for samples of so many bytes in all, as the source gave them."""
        if modality is not Modality.IMAGE:
            return Tier.LOSSLESS
        for number, tier in enumerate(self._tiers, start=1):
            if self._budget.affords(raw_bytes * self._weights[tier], number / len(self._tiers)):
                return tier
        return self._tiers[-1]

    def whole(self, tier: Tier) -> Tier:
        """That tier if it shows all of an image, else the smallest allowed that does, or lossless."""
        allowed = [one for one in (Tier.JPEG, Tier.LOSSLESS) if one in self._tiers]
        return tier if tier in (Tier.LOSSLESS, Tier.JPEG) else next(iter(allowed), Tier.LOSSLESS)

    def weight(self, tier: Tier) -> float:
        """What a byte of the source becomes on the wire."""
        return self._weights[tier]

    def learn(self, tier: Tier, raw_bytes: float, sent_bytes: float) -> None:
        """Samples of the source's `raw_bytes` became payloads of `sent_bytes`."""
        if raw_bytes > 0:
            self._weights[tier] += NEWEST_WEIGHT * (sent_bytes / raw_bytes - self._weights[tier])

    def reduce(
        self,
        tier: Tier,
        pixels: NDArray[np.uint8],
        encoded: bytes | None,
        hot: NDArray[np.uint8] | None,
        graph_size: tuple[int, int],
    ) -> tuple[NDArray[np.uint8], bytes | None, ImageCrop | None]:
        """Pixels, file bytes (None: make them without loss) and which part of the image these are.

        `hot`: the screener's anomaly map. `graph_size`: height and width of the graph's input. Never larger than the
        whole: where a tier would not help, the next better one is taken.
        """
        try:
            if tier is Tier.FEATURES:
                return self._preview(pixels)
            if tier is Tier.CROP and hot is not None and hot.any():
                region = hot_region(hot, (pixels.shape[0], pixels.shape[1]), graph_size)
                if region.height * region.width <= MOST_CROPPED * pixels.shape[0] * pixels.shape[1]:
                    cut = np.ascontiguousarray(pixels[region.rows, region.columns])
                    return cut, encode_jpeg(cut, self._quality), ImageCrop(pixels.shape[0], pixels.shape[1], region)
            if tier is not Tier.LOSSLESS:
                smaller = encode_jpeg(pixels, self._quality)
                encoded = smaller if encoded is None or len(smaller) < len(encoded) else encoded
        except SampleRejected:  # too long a side for JPEG: it travels as it is
            pass
        return pixels, encoded, None

    @staticmethod
    def _preview(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bytes, ImageCrop]:
        height, width = pixels.shape[:2]
        scale = min(1.0, PREVIEW_SIDE_PIXELS / max(height, width))
        small = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
        return small, encode_jpeg(small, PREVIEW_QUALITY), ImageCrop(height, width, None)


def hot_region(hot: NDArray[np.uint8], size: tuple[int, int], graph_size: tuple[int, int]) -> Region:
    """What has to travel of an image of `size` so that its hottest places can be judged as in the whole.

    That is the box around all cells of HOT_SHARE of the highest, or, should that be most of the image, around the
    highest alone; and CONTEXT_PIXELS of the graph's around it.
    """
    peak = np.unravel_index(int(hot.argmax()), hot.shape)
    spots = np.argwhere(hot >= max(1.0, HOT_SHARE * float(hot.max())))
    region = _around(spots, hot.shape, size, graph_size)
    if region.height * region.width > MOST_CROPPED * size[0] * size[1]:
        region = _around(np.array([peak]), hot.shape, size, graph_size)
    return region


def _around(
    spots: NDArray[np.intp], cells: tuple[int, ...], size: tuple[int, int], graph_size: tuple[int, int]
) -> Region:
    """The pixels around the cells `spots` (n, 2) of a map of `cells` rows and columns, moved inwards at an edge."""
    starts, lengths = [], []
    least = min_core_pixels(*graph_size, max(side / count for side, count in zip(graph_size, cells, strict=True)))
    for axis in range(2):
        low, high = float(spots[:, axis].min()), float(spots[:, axis].max() + 1)
        scale = size[axis] / graph_size[axis]
        core = (high - low) * size[axis] / cells[axis]
        length = min(size[axis], int(np.ceil(max(core, least * scale) + 2 * CONTEXT_PIXELS * scale)) + 2)
        centre = (low + high) / 2 * size[axis] / cells[axis]
        starts.append(int(np.clip(round(centre - length / 2), 0, size[axis] - length)))
        lengths.append(length)
    return Region(starts[0], starts[1], lengths[0], lengths[1])


def raw_bytes(values: NDArray[np.generic], encoded: Sequence[bytes] | None, position: int) -> int:
    """What one sample weighs as its source gave it."""
    return int(values.nbytes) if encoded is None else len(encoded[position])

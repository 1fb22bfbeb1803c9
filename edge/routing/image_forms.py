"""Payload forms of images: lossless, JPEG, a crop around the hottest cells of the anomaly map, or a preview.

The form `features` is the screener's anomaly map and scores, with a preview for people. The encoder's vectors would not
be smaller: 64 numbers for each of the 6400 patches of 640 x 640 pixels are more bytes than the JPEG file.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge.routing.payload_forms import LOSSLESS, SentContent
from edge.settings import RouterSettings
from shared.crops import CONTEXT_PIXELS, min_core_pixels
from shared.errors import SampleRejected
from shared.images import encode_jpeg, resize
from shared.samples import ImageCrop, Region, Values

JPEG, CROP, FEATURES = "jpeg", "crop", "features"
PREVIEW_SIDE_PIXELS, PREVIEW_QUALITY = 128, 60
MAX_CROPPED_SHARE = 0.5  # of the pixels: a larger crop saves little
HOT_SHARE = 0.5  # of the map's maximum


class ImageForms:
    """The forms of images that the settings allow; see `PayloadForms`."""

    expected_shares: Mapping[str, float] = {LOSSLESS: 1.0, JPEG: 0.2, CROP: 0.05, FEATURES: 0.01}

    def __init__(self, settings: RouterSettings) -> None:
        self.names: tuple[str, ...] = settings.payloads
        self._quality = settings.jpeg_quality

    def complete(self, form: str) -> str:
        """Return `form` if it shows the whole image, else the smallest allowed form that does, else LOSSLESS."""
        if form in (LOSSLESS, JPEG):
            return form
        return JPEG if JPEG in self.names else LOSSLESS

    def encode(
        self,
        form: str,
        values: Values,
        encoded: bytes | None,
        anomaly_map: NDArray[np.uint8] | None,
        graph_size: tuple[int, int],
    ) -> SentContent:
        """Return the image in a form; see `PayloadForms.encode`.

        A crop needs a map with a value above 0 and must leave out at least half of the pixels, else the image is sent
        as JPEG. The file of the source is kept where a new JPEG would be larger, or a side too long for JPEG.
        """
        pixels = cast(NDArray[np.uint8], values)
        height, width = pixels.shape[:2]
        try:
            if form == FEATURES:
                return _preview(pixels)
            if form == CROP and anomaly_map is not None and anomaly_map.any():
                region = hot_region(anomaly_map, (height, width), graph_size)
                if region.height * region.width <= MAX_CROPPED_SHARE * height * width:
                    cropped = np.ascontiguousarray(pixels[region.rows, region.columns])
                    return SentContent(cropped, encode_jpeg(cropped, self._quality), ImageCrop(height, width, region))
            if form != LOSSLESS:
                jpeg = encode_jpeg(pixels, self._quality)
                encoded = jpeg if encoded is None or len(jpeg) < len(encoded) else encoded
        except SampleRejected:  # a side is too long for JPEG
            pass
        return SentContent(pixels, encoded)


def _preview(pixels: NDArray[np.uint8]) -> SentContent:
    height, width = pixels.shape[:2]
    scale = min(1.0, PREVIEW_SIDE_PIXELS / max(height, width))
    small = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return SentContent(small, encode_jpeg(small, PREVIEW_QUALITY), ImageCrop(height, width, None))


def hot_region(anomaly_map: NDArray[np.uint8], image_size: tuple[int, int], graph_size: tuple[int, int]) -> Region:
    """Return the region of an image that the cloud needs in order to judge the hottest cells as in the whole image.

    The region is the box around all cells with at least HOT_SHARE of the maximum, plus CONTEXT_PIXELS of the graph's
    input on each side. If that box is more than MAX_CROPPED_SHARE of the image, it is the box around the maximum alone.
    `image_size` and `graph_size` are (height, width) in pixels.
    """
    peak = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    hot_cells = np.argwhere(anomaly_map >= max(1.0, HOT_SHARE * float(anomaly_map.max())))
    region = _box_around(hot_cells, anomaly_map.shape, image_size, graph_size)
    if region.height * region.width > MAX_CROPPED_SHARE * image_size[0] * image_size[1]:
        region = _box_around(np.array([peak]), anomaly_map.shape, image_size, graph_size)
    return region


def _box_around(
    cells: NDArray[np.intp], map_size: tuple[int, ...], image_size: tuple[int, int], graph_size: tuple[int, int]
) -> Region:
    """Return the pixels around `cells` (n, 2) of a map with `map_size` cells, shifted inwards at the image's edge."""
    starts, lengths = [], []
    patch_pixels = max(side / count for side, count in zip(graph_size, map_size, strict=True))
    min_core = min_core_pixels(*graph_size, patch_pixels)
    for axis in range(2):
        low, high = float(cells[:, axis].min()), float(cells[:, axis].max() + 1)
        scale = image_size[axis] / graph_size[axis]
        core = (high - low) * image_size[axis] / map_size[axis]
        length = int(np.ceil(max(core, min_core * scale) + 2 * CONTEXT_PIXELS * scale)) + 2
        length = min(image_size[axis], length)
        centre = (low + high) / 2 * image_size[axis] / map_size[axis]
        starts.append(int(np.clip(round(centre - length / 2), 0, image_size[axis] - length)))
        lengths.append(length)
    return Region(starts[0], starts[1], lengths[0], lengths[1])

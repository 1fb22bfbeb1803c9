"""Image samples: pixels of any size, as files or as the camera gives them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import Bundle, InputSpec
from shared.crops import CONTEXT_PIXELS, min_core_pixels
from shared.errors import SampleRejected
from shared.images import MAX_IMAGE_PIXELS, encode_jpeg, encode_png, resize
from shared.modalities.base import (
    FormSettings,
    PayloadForm,
    Reduced,
    check_crc,
    checked_shape,
    refuse_encoding,
    with_crc,
)
from shared.modalities.live import check_picture, picture_payload
from shared.modalities.pixels import (
    IMAGE_MAGIC,
    check_image_file,
    check_pixels_shape,
    decode_image_file,
    image_encoding,
)
from shared.modality import Modality
from shared.preprocessing import ImagePreprocessor, Preprocessor
from shared.samples import ImageCrop, Region, Values
from vedette.v1 import sample_pb2

PREVIEW_SIDE_PIXELS, PREVIEW_QUALITY = 128, 60
MAX_CROP_SHARE = 0.5  # of the pixels: a larger crop is hardly smaller than the whole
HOT_SHARE = 0.5  # of the highest value of the map
USUAL_BATCH_SIZE = 8


class ImageType:
    """Images (height, width, 1 or 3) uint8."""

    modality, rank = Modality.IMAGE, 3
    has_vectors = False
    engine_dtype: type[np.generic] = np.uint8
    forms: tuple[PayloadForm, ...] = (
        PayloadForm.LOSSLESS,
        PayloadForm.JPEG,
        PayloadForm.CROP,
        PayloadForm.FEATURES,
    )
    max_values = 3 * MAX_IMAGE_PIXELS

    def usual_batch_size(self, spec: InputSpec) -> int:
        """Return USUAL_BATCH_SIZE: large samples do not fit into the caches together."""
        return USUAL_BATCH_SIZE

    def engine_shape(self, spec: InputSpec) -> tuple[int, ...]:
        """Return (height, width, 3) of the graph."""
        return spec.image_height, spec.image_width, 3

    def fit_preprocessor(self, values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Preprocessor:
        """Return the resizing to the size in `spec`; nothing is fitted."""
        return ImagePreprocessor(spec)

    def load_preprocessor(self, bundle: Bundle, spec: InputSpec) -> Preprocessor:
        """Return the resizing to the size in `spec`."""
        return ImagePreprocessor(spec)

    def source_bytes(self, values: Values, encoded: bytes | None) -> int:
        """Return the size of the image's file, or of its pixels where the source has no file."""
        return int(values.nbytes) if encoded is None else len(encoded)

    def reduce(
        self,
        form: PayloadForm,
        sample: Reduced,
        anomaly_map: NDArray[np.uint8] | None,
        spec: InputSpec,
        settings: FormSettings,
    ) -> Reduced:
        """Return an image as JPEG, cropped to the hottest places of the map, or as a small preview.

        The result is never larger than the whole image: where a form would not help, the next better one is taken.
        """
        pixels, encoded = np.asarray(sample.values, dtype=np.uint8), sample.encoded
        height, width = pixels.shape[:2]
        try:
            if form is PayloadForm.FEATURES:
                small = preview(pixels)
                return Reduced(small, encode_jpeg(small, PREVIEW_QUALITY), ImageCrop(height, width, None))
            if form is PayloadForm.CROP and anomaly_map is not None and anomaly_map.any():
                region = hot_region(anomaly_map, (height, width), (spec.image_height, spec.image_width))
                if region.height * region.width <= MAX_CROP_SHARE * height * width:
                    cut = np.ascontiguousarray(pixels[region.rows, region.columns])
                    return Reduced(cut, encode_jpeg(cut, settings.jpeg_quality), ImageCrop(height, width, region))
            if form is not PayloadForm.LOSSLESS:
                smaller = encode_jpeg(pixels, settings.jpeg_quality)
                encoded = smaller if encoded is None or len(smaller) < len(encoded) else encoded
        except SampleRejected:  # a side is too long for JPEG: the image travels as it is
            pass
        return Reduced(pixels, encoded)

    def encode(self, values: Values, encoded: bytes | None = None) -> sample_pb2.Payload:
        """Return the image's own PNG or JPEG file if it is complete, else a PNG file of its pixels.

        Raises SampleRejected if `values` are not the pixels of an image.
        """
        if values.ndim != self.rank or values.dtype != np.uint8:
            raise SampleRejected(f"pixels of shape {values.shape} are not (height, width, bands)")
        encoding = None if encoded is None else image_encoding(encoded)
        if encoded is not None and encoding is not None and _is_whole(encoded, encoding, values.shape):
            payload = sample_pb2.Payload(encoding=encoding, data=encoded, shape=values.shape)
        else:
            pixels = np.asarray(values, dtype=np.uint8)
            encoding = sample_pb2.PAYLOAD_ENCODING_PNG
            payload = sample_pb2.Payload(encoding=encoding, data=encode_png(pixels), shape=values.shape)
        return with_crc(payload)

    def check_shape(self, shape: tuple[int, ...], spec: InputSpec) -> None:
        """Raise SampleRejected unless the shape is (height, width, 1 or 3) and large enough; sizes are fitted."""
        check_pixels_shape(shape)

    def check_values(self, payload: sample_pb2.Payload, spec: InputSpec) -> None:
        """Accept all pixels."""

    def check(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected unless header, length, CRC and structure of the file are right."""
        self._checked(payload)

    def decode(self, payload: sample_pb2.Payload) -> Values:
        """Return the pixels (height, width, 1 or 3) uint8."""
        return decode_image_file(payload.data, self._checked(payload))

    def live_payload(self, values: Values) -> tuple[sample_pb2.Payload, int]:
        """Return a preview of the image."""
        return picture_payload(np.asarray(values, dtype=np.uint8)), 1

    def check_live(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected unless the payload is a complete JPEG preview of bounded size."""
        check_picture(payload)

    def live_values(self, payload: sample_pb2.Payload) -> Values:
        """Return the pixels of the preview."""
        return decode_image_file(payload.data, check_picture(payload))

    def _checked(self, payload: sample_pb2.Payload) -> tuple[int, ...]:
        shape = checked_shape(payload, self)
        if payload.encoding not in IMAGE_MAGIC:
            raise refuse_encoding(payload, self.modality)
        data = payload.data  # a copy each time
        check_crc(payload, data)
        check_image_file(data, payload.encoding, shape)
        return shape


def preview(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the whole image with its longer side reduced to at most PREVIEW_SIDE_PIXELS."""
    height, width = pixels.shape[:2]
    scale = min(1.0, PREVIEW_SIDE_PIXELS / max(height, width))
    return resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))


def hot_region(hot: NDArray[np.uint8], size: tuple[int, int], graph_size: tuple[int, int]) -> Region:
    """Return the region of an image of `size` that must travel so that its hottest places can be judged.

    That is the box around all cells of at least HOT_SHARE of the highest value, plus CONTEXT_PIXELS (of the graph's
    input) on each side. If that is most of the image, it is the box around the highest cell alone.

    Args:
        hot: anomaly map (rows, columns) uint8.
        size: height and width of the image.
        graph_size: height and width of the graph's input.
    """
    peak = np.unravel_index(int(hot.argmax()), hot.shape)
    spots = np.argwhere(hot >= max(1.0, HOT_SHARE * float(hot.max())))
    region = _around(spots, hot.shape, size, graph_size)
    if region.height * region.width > MAX_CROP_SHARE * size[0] * size[1]:
        region = _around(np.array([peak]), hot.shape, size, graph_size)
    return region


def _around(
    spots: NDArray[np.intp], cells: tuple[int, ...], size: tuple[int, int], graph_size: tuple[int, int]
) -> Region:
    """Return the region around cells `spots` (n, 2) of a map of `cells` rows and columns, moved inwards at an edge."""
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


def _is_whole(data: bytes, encoding: int, shape: tuple[int, ...]) -> bool:
    try:
        check_image_file(data, encoding, shape)
    except SampleRejected:
        return False
    return True


SAMPLE_TYPE = ImageType()

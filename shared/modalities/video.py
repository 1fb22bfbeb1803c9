"""Video samples: clips of a few frames at a fixed interval, at the size of the graph's input."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import Bundle, InputSpec
from shared.errors import SampleRejected
from shared.images import JPEG_MAGIC, MAX_IMAGE_PIXELS, encode_jpeg, encode_png
from shared.logs import EventLog
from shared.modalities.base import (
    FormSettings,
    PayloadForm,
    Reduced,
    check_crc,
    checked_shape,
    refuse_encoding,
    with_crc,
)
from shared.modalities.frame_list import FILE_ENCODINGS, check_frames, decode_frames, pack_frames
from shared.modalities.h264 import START_CODE, can_encode, check_h264, decode_h264, encode_h264
from shared.modalities.image import PREVIEW_QUALITY, preview
from shared.modalities.live import check_picture, picture_payload
from shared.modalities.pixels import check_pixels_shape, decode_image_file
from shared.modality import Modality
from shared.preprocessing import Preprocessor, VideoPreprocessor
from shared.samples import ImageCrop, Values
from vedette.v1 import sample_pb2

USUAL_BATCH_SIZE = 4
MAX_FRAMES = 64
_LENGTH_BYTES = 4  # before the first file of a list of frames

log = EventLog("video")


class VideoType:
    """Clips (frames, height, width, 3) uint8, in the order of time."""

    modality, rank = Modality.VIDEO, 4
    _has_logged_encoder = False
    has_vectors = False
    engine_dtype: type[np.generic] = np.uint8
    forms: tuple[PayloadForm, ...] = (PayloadForm.LOSSLESS, PayloadForm.JPEG, PayloadForm.H264, PayloadForm.FEATURES)
    max_values = 3 * MAX_IMAGE_PIXELS

    def usual_batch_size(self, spec: InputSpec) -> int:
        """Return USUAL_BATCH_SIZE: a clip is several images."""
        return USUAL_BATCH_SIZE

    def engine_shape(self, spec: InputSpec) -> tuple[int, ...]:
        """Return (frames, height, width, 3) of the graph."""
        return spec.window_length, spec.image_height, spec.image_width, 3

    def fit_preprocessor(self, values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Preprocessor:
        """Return the resizing to the size in `spec`; nothing is fitted."""
        return VideoPreprocessor(spec)

    def load_preprocessor(self, bundle: Bundle, spec: InputSpec) -> Preprocessor:
        """Return the resizing to the size in `spec`."""
        return VideoPreprocessor(spec)

    def source_bytes(self, values: Values, encoded: bytes | None) -> int:
        """Return the size of the clip's pixels."""
        return int(values.nbytes)

    def reduce(
        self,
        form: PayloadForm,
        sample: Reduced,
        anomaly_map: NDArray[np.uint8] | None,
        spec: InputSpec,
        settings: FormSettings,
    ) -> Reduced:
        """Return a clip with its frames as JPEG, as an H.264 stream, or as a small preview of its last frame.

        Where H.264 cannot be encoded, the frames travel as JPEG. The first encoder error is logged.
        """
        clip = np.asarray(sample.values, dtype=np.uint8)
        if form is PayloadForm.FEATURES:
            small = preview(clip[-1])[np.newaxis]
            encoded = pack_frames(small, partial(encode_jpeg, quality=PREVIEW_QUALITY))
            return Reduced(small, encoded, ImageCrop(clip.shape[1], clip.shape[2], None))
        if form is PayloadForm.LOSSLESS:
            return sample
        if form is PayloadForm.H264 and (stream := self._stream(clip, settings.max_bytes)) is not None:
            return Reduced(clip, stream)
        return Reduced(clip, pack_frames(clip, partial(encode_jpeg, quality=settings.jpeg_quality)))

    def encode(self, values: Values, encoded: bytes | None = None) -> sample_pb2.Payload:
        """Return the clip as `encoded`, an H.264 stream or a list of JPEG files, else without loss as PNG files.

        Raises SampleRejected if `values` are not the pixels of a clip.
        """
        if values.ndim != self.rank or values.dtype != np.uint8 or not 0 < len(values) <= MAX_FRAMES:
            raise SampleRejected(f"pixels of shape {values.shape} are not a clip of 1 to {MAX_FRAMES} frames")
        encoding = _encoding_of(encoded) if encoded is not None else None
        if encoded is None or encoding is None:
            encoding = sample_pb2.PAYLOAD_ENCODING_PNG_FRAMES
            encoded = pack_frames(np.asarray(values, dtype=np.uint8), encode_png)
        return with_crc(sample_pb2.Payload(encoding=encoding, data=encoded, shape=values.shape))

    def check_shape(self, shape: tuple[int, ...], spec: InputSpec) -> None:
        """Raise SampleRejected unless the shape is (frames of the bundle, height, width, 1 or 3)."""
        if shape[:1] != (spec.window_length,):
            raise SampleRejected(f"has shape {shape}; the bundle expects clips of {spec.window_length} frames")
        check_pixels_shape(shape[1:])

    def check_values(self, payload: sample_pb2.Payload, spec: InputSpec) -> None:
        """Accept all pixels."""

    def check(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected unless frame count, headers, lengths and checksums are right."""
        self._checked(payload)

    def decode(self, payload: sample_pb2.Payload) -> Values:
        """Return the frames (frames, height, width, 3) uint8."""
        shape = self._checked(payload)
        decode = decode_h264 if payload.encoding == sample_pb2.PAYLOAD_ENCODING_H264 else decode_frames
        return decode(payload.data, shape)

    def _stream(self, clip: NDArray[np.uint8], max_bytes: int) -> bytes | None:
        """Return a clip as an H.264 stream, or None if it cannot be encoded."""
        try:
            return encode_h264(clip, max_bytes) if can_encode(clip) else None
        except Exception as error:  # the encoder is foreign code; JPEG still carries the clip
            if not self._has_logged_encoder:
                self._has_logged_encoder = True
                log.warning("h264_failed", reason=repr(error), shape=clip.shape)
            return None

    def live_payload(self, values: Values) -> tuple[sample_pb2.Payload, int]:
        """Return a preview of the last frame."""
        return picture_payload(np.asarray(values[-1], dtype=np.uint8)), 1

    def check_live(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected unless the payload is a complete JPEG preview of bounded size."""
        check_picture(payload)

    def live_values(self, payload: sample_pb2.Payload) -> Values:
        """Return the pixels of the preview."""
        return decode_image_file(payload.data, check_picture(payload))

    def _checked(self, payload: sample_pb2.Payload) -> tuple[int, ...]:
        shape = checked_shape(payload, self)
        if shape[0] > MAX_FRAMES:
            raise SampleRejected(f"clip of {shape[0]} frames; the limit is {MAX_FRAMES}")
        if payload.encoding not in (*FILE_ENCODINGS, sample_pb2.PAYLOAD_ENCODING_H264):
            raise refuse_encoding(payload, self.modality)
        check_crc(payload)
        if payload.encoding == sample_pb2.PAYLOAD_ENCODING_H264:
            check_h264(payload.data, shape)
        else:
            check_frames(payload.data, payload.encoding, shape)
        return shape


def _encoding_of(data: bytes) -> sample_pb2.PayloadEncoding | None:
    if data.startswith(START_CODE):
        return sample_pb2.PAYLOAD_ENCODING_H264
    is_jpeg = data.startswith(JPEG_MAGIC, _LENGTH_BYTES)
    return sample_pb2.PAYLOAD_ENCODING_JPEG_FRAMES if is_jpeg else None


SAMPLE_TYPE = VideoType()

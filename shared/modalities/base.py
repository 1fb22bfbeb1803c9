"""Protocol of a modality: format, preprocessing and payloads of one kind of sample."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundle import Bundle, InputSpec
from shared.errors import SampleRejected
from shared.modality import Modality
from shared.preprocessing import Preprocessor
from shared.samples import ImageCrop, Values
from vedette.v1 import sample_pb2

MAX_PAYLOAD_BYTES = 16 * 2**20
MAX_VALUES = 2**24  # numbers in one sample of readings
# Plain floats have no structure that damage could break; PNG chunks have checksums of their own.
_WITHOUT_CRC = (
    sample_pb2.PAYLOAD_ENCODING_FLOAT32,
    sample_pb2.PAYLOAD_ENCODING_PNG,
    sample_pb2.PAYLOAD_ENCODING_PNG_FRAMES,
)


class PayloadForm(StrEnum):
    """How much of a sample travels, from all of it to a preview."""

    LOSSLESS = "lossless"
    JPEG = "jpeg"
    H264 = "h264"
    CROP = "crop"
    FEATURES = "features"


@dataclass(frozen=True, slots=True)
class FormSettings:
    """Settings of the payload forms.

    `jpeg_quality`: 1 to 100. `max_bytes`: budget of one sample in a form with a variable rate; 0 sets no bound.
    """

    jpeg_quality: int = 90
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reduced:
    """One sample in its payload form.

    `encoded`: the file or stream that travels; None: encode `values` without loss. `crop`: the part of the image or
    clip that `values` show; None: all of it.
    """

    values: Values
    encoded: bytes | None = None
    crop: ImageCrop | None = None


class SampleType(Protocol):
    """Everything that depends on the modality of a sample, on both sides of the link.

    Other code asks `sample_type(modality)` instead of looking at dimensions, types or sizes to find out which modality
    it handles. docs/ARCHITECTURE.md, "Adding a modality", names the exceptions.
    """

    modality: Modality
    rank: int  # dimensions of one sample's values
    has_vectors: bool  # graph inputs are (n, dim) float32: the normal buffer keeps them, rounds train on them
    engine_dtype: type[np.generic]  # of the engine inputs
    forms: tuple[PayloadForm, ...]  # in falling size
    max_values: int  # numbers or bytes of pixels in one sample

    def usual_batch_size(self, spec: InputSpec) -> int:
        """Return the default number of samples screened at once."""
        ...

    def engine_shape(self, spec: InputSpec) -> tuple[int, ...]:
        """Return the shape of one sample's engine input; empty where only the graph knows it."""
        ...

    def fit_preprocessor(self, values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Preprocessor:
        """Fit the preprocessing on normal samples (n, ...); raises DataError if they do not fit `spec`."""
        ...

    def load_preprocessor(self, bundle: Bundle, spec: InputSpec) -> Preprocessor:
        """Load the preprocessing of a bundle; raises BundleError if it is damaged."""
        ...

    def source_bytes(self, values: Values, encoded: bytes | None) -> int:
        """Return the size of one sample as its source gave it, in bytes."""
        ...

    def reduce(
        self,
        form: PayloadForm,
        sample: Reduced,
        anomaly_map: NDArray[np.uint8] | None,
        spec: InputSpec,
        settings: FormSettings,
    ) -> Reduced:
        """Return a whole sample in a payload form, or in a better one where `form` would not make it smaller.

        `anomaly_map`: (rows, columns) uint8, the screener's. `spec`: of the screener's bundle.
        """
        ...

    def encode(self, values: Values, encoded: bytes | None = None) -> sample_pb2.Payload:
        """Return the payload of one sample: `encoded` where that is such a payload, else without loss.

        Raises SampleRejected if `values` are not a sample of this modality.
        """
        ...

    def decode(self, payload: sample_pb2.Payload) -> Values:
        """Return the values of a payload that `check` accepts; raises SampleRejected if it is damaged."""
        ...

    def check_shape(self, shape: tuple[int, ...], spec: InputSpec) -> None:
        """Raise SampleRejected if a bundle with `spec` cannot judge a whole sample of that shape."""
        ...

    def check_values(self, payload: sample_pb2.Payload, spec: InputSpec) -> None:
        """Raise SampleRejected if a payload that `check` accepts holds values that a bundle with `spec` refuses.

        Decodes readings, whose size `check_shape` has bounded, and never pixels.
        """
        ...

    def check(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected if `decode` would refuse the payload, without decoding pixels.

        Looks at encoding, shape, headers, lengths and checksums. A compressed payload without checksum is decompressed.
        """
        ...

    def live_payload(self, values: Values) -> tuple[sample_pb2.Payload, int]:
        """Return a whole sample in a small form for people, and n if it has every n-th time point, else 1.

        Raises SampleRejected if there is no small form.
        """
        ...

    def check_live(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected for a payload that is none of `live_payload`, without decoding pixels."""
        ...

    def live_values(self, payload: sample_pb2.Payload) -> Values:
        """Return the readings, or the pixels (height, width, 3), of a payload that `check_live` accepts.

        Raises SampleRejected if it is damaged.
        """
        ...


def checked_shape(payload: sample_pb2.Payload, kind: SampleType) -> tuple[int, ...]:
    """Return the shape of a payload; raises SampleRejected if it is not one of a sample of this kind."""
    if len(payload.data) > MAX_PAYLOAD_BYTES:
        raise SampleRejected(f"payload of {len(payload.data)} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    if len(payload.shape) != kind.rank:
        raise SampleRejected(f"shape has {len(payload.shape)} dimensions; a {kind.modality} sample has {kind.rank}")
    shape = tuple(payload.shape)
    if not 0 < math.prod(shape) <= kind.max_values:
        raise SampleRejected(f"shape {shape} is empty or holds more than {kind.max_values} values")
    return shape


def refuse_encoding(payload: sample_pb2.Payload, modality: Modality) -> SampleRejected:
    """Return the error for an encoding that samples of this modality do not have."""
    return SampleRejected(f"payload encoding {payload.encoding} does not fit a {modality} sample")


def with_crc(payload: sample_pb2.Payload) -> sample_pb2.Payload:
    """Return the payload, with a CRC-32 of its data unless the encoding needs none."""
    if payload.encoding not in _WITHOUT_CRC:
        payload.crc32 = zlib.crc32(payload.data)
    return payload


def has_checked_crc(payload: sample_pb2.Payload) -> bool:
    """Return whether the check of a payload has compared its data with the CRC-32 that it carries."""
    return payload.encoding not in _WITHOUT_CRC and payload.HasField("crc32")


def check_crc(payload: sample_pb2.Payload, data: bytes | None = None) -> None:
    """Raise SampleRejected if the payload carries a CRC-32 that does not match its `data` (None: read it)."""
    if payload.HasField("crc32") and zlib.crc32(payload.data if data is None else data) != payload.crc32:
        raise SampleRejected("payload is damaged: its CRC-32 does not match")

"""Behaviour that rows and windows share: small samples of float32 readings that always travel whole."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import MAX_BATCH_SIZE, Bundle, InputSpec
from shared.errors import SampleRejected
from shared.modalities.base import (
    MAX_VALUES,
    FormSettings,
    PayloadForm,
    Reduced,
    check_crc,
    checked_shape,
    refuse_encoding,
)
from shared.modalities.floats import ENCODINGS, check_floats, check_frame, decode_floats, encode_floats
from shared.modalities.live import check_live_size, readings_payload
from shared.modality import Modality
from shared.preprocessing import ModePreprocessor, Preprocessor, inner_spec, without_mode
from shared.samples import Values
from vedette.v1 import sample_pb2

BATCH_BYTES, MIN_BATCH = 2**21, 1024


class ReadingsType(ABC):
    """Base of the modalities whose samples are float32 readings."""

    modality: Modality
    rank: int
    has_vectors = True
    engine_dtype: type[np.generic] = np.float32
    forms: tuple[PayloadForm, ...] = (PayloadForm.LOSSLESS,)
    max_values = MAX_VALUES

    @abstractmethod
    def sample_values(self, spec: InputSpec) -> int:
        """Return how many readings a sample has."""

    @abstractmethod
    def _fit(self, values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Preprocessor:
        """Fit the preprocessing of the measured channels."""

    @abstractmethod
    def _load(self, bundle: Bundle, spec: InputSpec) -> Preprocessor:
        """Load the preprocessing of the measured channels."""

    def usual_batch_size(self, spec: InputSpec) -> int:
        """Return MIN_BATCH to MAX_BATCH_SIZE samples, of about BATCH_BYTES, as a power of two.

        The fixed cost of a batch counts beside that of small samples; many large samples do not fit into the caches.
        Files are read in blocks of powers of two, which then give whole batches.
        """
        most = max(MIN_BATCH, min(BATCH_BYTES // (4 * max(1, self.sample_values(spec))), MAX_BATCH_SIZE))
        return 1 << most.bit_length() - 1

    def engine_shape(self, spec: InputSpec) -> tuple[int, ...]:
        """Return an empty shape: the width depends on the fitted preprocessing, and the graph knows it."""
        return ()

    def fit_preprocessor(self, values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Preprocessor:
        """Fit the preprocessing, with columns for the operating modes if `spec` has a mode channel."""
        if spec.mode_channel:
            return ModePreprocessor(self._fit(without_mode(values, spec), inner_spec(spec)), spec)
        return self._fit(values, spec)

    def load_preprocessor(self, bundle: Bundle, spec: InputSpec) -> Preprocessor:
        """Load the preprocessing, with columns for the operating modes if `spec` has a mode channel."""
        if spec.mode_channel:
            return ModePreprocessor(self._load(bundle, inner_spec(spec)), spec)
        return self._load(bundle, spec)

    def source_bytes(self, values: Values, encoded: bytes | None) -> int:
        """Return the size of one sample as its source gave it, in bytes."""
        return int(values.nbytes)

    def reduce(
        self,
        form: PayloadForm,
        sample: Reduced,
        anomaly_map: NDArray[np.uint8] | None,
        spec: InputSpec,
        settings: FormSettings,
    ) -> Reduced:
        """Return the sample as it is: readings are small."""
        return sample

    def encode(self, values: Values, encoded: bytes | None = None) -> sample_pb2.Payload:
        """Return the values as float32; raises SampleRejected for another number of dimensions."""
        if values.ndim != self.rank:
            raise SampleRejected(f"values of shape {values.shape} are not a {self.modality} sample")
        return encode_floats(values)

    def check_shape(self, shape: tuple[int, ...], spec: InputSpec) -> None:
        """Raise SampleRejected unless the shape is (channels,), or (window length, channels)."""
        wanted = (*((spec.window_length,) if spec.window_length else ()), len(spec.channels))
        if shape != wanted:
            given, expected = (" x ".join(map(str, sizes)) or "no" for sizes in (shape, wanted))
            raise SampleRejected(f"has {given} values; the bundle expects {expected}")

    def check_values(self, payload: sample_pb2.Payload, spec: InputSpec) -> None:
        """Raise SampleRejected for infinite values, for NaN unless values may be missing, and for nothing but NaN."""
        values = self.decode(payload)
        if np.isfinite(values).all():
            return
        if np.isinf(values).any():
            raise SampleRejected("a value is infinite")
        missing = np.isnan(values)
        if missing.all() or (missing.any() and not spec.missing):
            raise SampleRejected("all values are NaN" if missing.all() else "a value is NaN")

    def check(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected unless shape, encoding and length agree and a zstd frame is complete."""
        check_frame(payload, self._checked(payload))

    def decode(self, payload: sample_pb2.Payload) -> Values:
        """Return the readings. NaN is kept: it may stand for a missing value, which the preprocessing judges."""
        return decode_floats(payload, self._checked(payload))

    def live_payload(self, values: Values) -> tuple[sample_pb2.Payload, int]:
        """Return the readings, of long windows every n-th time point and n."""
        return readings_payload(values)

    def check_live(self, payload: sample_pb2.Payload) -> None:
        """Raise SampleRejected for too many readings, and as `check` does."""
        check_live_size(payload)
        self.check(payload)

    def live_values(self, payload: sample_pb2.Payload) -> Values:
        """Return the readings."""
        self.check_live(payload)
        return self.decode(payload)

    def _checked(self, payload: sample_pb2.Payload) -> tuple[int, ...]:
        shape = checked_shape(payload, self)
        if payload.encoding not in ENCODINGS:
            raise refuse_encoding(payload, self.modality)
        check_crc(payload)
        check_floats(payload, shape)
        return shape

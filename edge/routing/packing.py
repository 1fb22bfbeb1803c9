"""Messages of the samples that are sent, as the spool stores them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.routing.router import ROUTES, Routing
from edge.screener import ScreenedBatch, Screener
from edge.spool_store import NewSample
from edge.tracing import SampleTraces
from shared.errors import SampleRejected
from shared.logs import EventLog, Throttle
from shared.modalities import sample_type
from shared.modalities.base import FormSettings, PayloadForm, Reduced
from shared.samples import Route, Sample, SampleBatch, Screening, new_sample_id, new_sample_ids
from shared.wire import MAX_MAP_CELLS, MAX_TEXT_CHARACTERS, encode_payload, sample_to_message, whole_seconds
from vedette.v1 import sample_pb2

log = EventLog("packing")
_throttle = Throttle()
_FLOAT_ENCODINGS = (sample_pb2.PAYLOAD_ENCODING_FLOAT32, sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD)


@dataclass(frozen=True, slots=True)
class SentForm:
    """Payload form of a batch: `usual` for forwarded samples, `audited` for audits, which must show everything."""

    usual: PayloadForm
    audited: PayloadForm
    settings: FormSettings


LOSSLESS = SentForm(PayloadForm.LOSSLESS, PayloadForm.LOSSLESS, FormSettings())


@dataclass(frozen=True, slots=True)
class Packed:
    """Result of `pack`: `samples` and `sample_ids` by place for all that were packed, `failed` places for the rest."""

    samples: list[NewSample] = field(default_factory=list)
    sample_ids: dict[int, uuid.UUID] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)


def pack(
    batch: SampleBatch,
    screened: ScreenedBatch,
    routing: Routing,
    screener: Screener,
    form: SentForm,
    traces: SampleTraces | None = None,
) -> Packed:
    """Pack each sample that `routing` sends, in a payload form; `traces` marks those that are traced.

    Places are positions in `screened.kept`. A sample that cannot be packed is logged and counted as failed; the others
    are packed.
    """
    packed = Packed()
    places = np.flatnonzero(routing.travels)
    if not len(places):
        return packed
    packer = _Packer(batch, screened, routing.codes, places, screener, form)
    priorities, sample_ids = routing.priorities[places].tolist(), new_sample_ids(len(places))
    for number, (place, sample_id) in enumerate(zip(places.tolist(), sample_ids, strict=True)):
        try:
            message = packer.message(number, sample_id)
            if traces is not None:
                traces.begin(message)
            data = message.SerializeToString()
        except Exception as error:
            packed.failed.append(place)
            if _throttle.allow("failed"):
                reason = error if isinstance(error, SampleRejected) else repr(error)
                log.error("sample_not_packed", origin=batch.origins[int(screened.kept[place])], reason=reason)
            continue
        packed.sample_ids[place] = sample_id
        packed.samples.append(NewSample(sample_id.bytes, priorities[number], data))
    return packed


def envelope_bytes(batch: SampleBatch, screened: ScreenedBatch, codes: NDArray[np.int8], screener: Screener) -> int:
    """Return the size in bytes of the first sample's message without its payload.

    Raises SampleRejected if that sample cannot be packed.
    """
    packer = _Packer(batch, screened, codes, np.zeros(1, np.intp), screener, LOSSLESS)
    message = packer.message(0, new_sample_id())
    return message.ByteSize() - len(message.payload.data)


class _Packer:
    """Makes the messages of the samples at `places` (n,) of one batch.

    For readings, one message is reused and only the fields that differ are set: that takes a third of the time.
    If compression does not make the first sample smaller, it is not tried for the rest of the batch.
    """

    def __init__(
        self,
        batch: SampleBatch,
        screened: ScreenedBatch,
        codes: NDArray[np.int8],
        places: NDArray[np.intp],
        screener: Screener,
        form: SentForm,
    ) -> None:
        self._batch, self._maps, self._screener = batch, screened.maps, screener
        self._calibration_id = screened.calibration_id or screener.calibration_id
        # One conversion to Python numbers for each column, not one for each field of each message.
        self._places, self._positions = places.tolist(), screened.kept[places].tolist()
        self._scores, self._p_values = screened.scores[places].tolist(), screened.p_values[places].tolist()
        self._captured_at_s = batch.captured_at_s[screened.kept[places]].tolist()
        self._extrapolated, self._codes = screened.extrapolated[places].tolist(), codes[places].tolist()
        self._form = form
        self._template: sample_pb2.Sample | None = None
        self._compresses = False

    def message(self, number: int, sample_id: uuid.UUID) -> sample_pb2.Sample:
        """Return the message of the sample at place `number`, valid until the next call.

        Raises SampleRejected if the wire format cannot carry the sample.
        """
        position = self._positions[number]
        origin = self._batch.origins[position]
        message = self._template
        if message is not None and len(origin) <= MAX_TEXT_CHARACTERS and origin.isascii():
            screening, captured_at, values = message.screening, message.captured_at, self._batch.values[position]
            message.sample_id = sample_id.bytes
            message.origin = origin
            captured_at.seconds, captured_at.nanos = whole_seconds(self._captured_at_s[number])
            if self._compresses:
                message.payload.CopyFrom(encode_payload(values, self._batch.modality))
            else:
                message.payload.data = np.asarray(values, dtype="<f4").tobytes()
            screening.score = self._scores[number]
            screening.p_value = self._p_values[number]
            screening.extrapolated = self._extrapolated[number]
            screening.route = _WIRE_ROUTES[self._codes[number]]
            return message
        result = self._screening(number)
        message = sample_to_message(self._sample(position, sample_id, origin, result), result)
        if self._maps is None and message.payload.encoding in _FLOAT_ENCODINGS:
            self._template = message
            self._compresses = message.payload.encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD
        return message

    def _sample(self, position: int, sample_id: uuid.UUID, origin: str, screening: Screening) -> Sample:
        batch = self._batch
        content = Reduced(batch.values[position], batch.encoded[position] if batch.encoded is not None else None)
        # An audit estimates what the screener misses, so the screener's map must not choose what the cloud sees.
        form = self._form.audited if screening.route is Route.AUDIT else self._form.usual
        if form is not PayloadForm.LOSSLESS:
            content = sample_type(batch.modality).reduce(
                form, content, screening.anomaly_map, self._screener.spec, self._form.settings
            )
        return Sample(
            sample_id=sample_id,
            source_id=batch.source_id,
            modality=batch.modality,
            captured_at_s=float(batch.captured_at_s[position]),
            origin=origin,
            values=content.values,
            encoded=content.encoded,
            crop=content.crop,
        )

    def _screening(self, number: int) -> Screening:
        screener, place = self._screener, self._places[number]
        anomaly_map = None
        if self._maps is not None and self._maps[place].size <= MAX_MAP_CELLS:
            anomaly_map = screener.scaled_map(self._maps[place])
        return Screening(
            score=self._scores[number],
            p_value=self._p_values[number],
            extrapolated=self._extrapolated[number],
            route=ROUTES[self._codes[number]],
            bundle_id=screener.bundle_id,
            calibration_id=self._calibration_id,
            artefact=screener.artefact,
            anomaly_map=anomaly_map,
        )


# In the order of the router's codes.
_WIRE_ROUTES: Sequence[sample_pb2.Route] = (
    sample_pb2.ROUTE_ACCEPT,
    sample_pb2.ROUTE_FORWARD,
    sample_pb2.ROUTE_ALARM,
    sample_pb2.ROUTE_AUDIT,
)

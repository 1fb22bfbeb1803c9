"""Normal pictures that look most like a sample: stored ones of its source that the cloud found normal."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.modalities import View, cloud_modality
from shared.errors import SampleRejected
from shared.modality import Modality
from shared.samples import Values
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

CANDIDATES = 12
MAX_CANDIDATE_BYTES = 4 * 2**20  # as stored, of all candidates together
MAX_DECODED_BYTES = 12 * 2**20  # of all candidates together
SHOWN_EXAMPLES = 3
_SIDE = 24


@dataclass(frozen=True, slots=True)
class NormalExample:
    """A stored normal sample; `distance`: mean difference of the small pictures, in grey levels."""

    sample_id: uuid.UUID
    distance: float


def nearest_examples(
    values: Values, modality: Modality, candidates: Sequence[tuple[uuid.UUID, sample_pb2.Payload]]
) -> tuple[NormalExample, ...]:
    """Return the candidates most like a picture or the last frame of a clip. Blocking: it decodes them.

    Previews and crops are no examples, nor is one that cannot be decoded.
    """
    if cloud_modality(modality).view not in (View.PICTURE, View.CLIP):
        return ()
    own, found, decoded_bytes = _small(values), [], 0
    for sample_id, payload in candidates[:CANDIDATES]:
        decoded_bytes += math.prod(payload.shape)
        if payload.HasField("crop") or decoded_bytes > MAX_DECODED_BYTES:
            continue
        try:
            other = _small(decode_payload(payload, modality))
        except SampleRejected:
            continue
        found.append(NormalExample(sample_id, float(np.abs(own - other).mean())))
    return tuple(sorted(found, key=lambda example: example.distance)[:SHOWN_EXAMPLES])


def _small(values: Values) -> NDArray[np.float32]:
    """Return a grey picture of _SIDE pixels a side without its mean brightness."""
    pixels = values[-1] if values.ndim == 4 else values
    grey = pixels.astype(np.uint8, copy=False).mean(axis=2, dtype=np.float32)
    small: NDArray[np.float32] = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    centred: NDArray[np.float32] = small - small.mean()
    return centred

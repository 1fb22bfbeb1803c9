"""Normal pictures that look most like a sample: stored ones of its source that the cloud found normal."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.evidence.expected_picture import SIDE_PX
from cloud.evidence.pictures import fitted
from cloud.modalities import View, cloud_modality
from shared.errors import SampleRejected
from shared.modality import Modality
from shared.samples import Values
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

CANDIDATES = 12
MAX_CANDIDATE_BYTES = 4 * 2**20  # as stored, of all candidates together
MAX_DECODED_BYTES = 12 * 2**20  # of all candidates together
CLIP_DIMENSIONS = 4
_SIDE = 24


@dataclass(frozen=True, slots=True)
class NormalExample:
    """A stored normal sample.

    `distance`: mean difference of the small pictures, in grey levels. `pixels`: (height, width, 3) uint8, of a clip its
    last frame, shrunk to SIDE_PX.
    """

    sample_id: uuid.UUID
    distance: float
    pixels: NDArray[np.uint8]


def nearest_examples(
    values: Values, modality: Modality, candidates: Sequence[tuple[uuid.UUID, sample_pb2.Payload]]
) -> tuple[NormalExample, ...]:
    """Return the candidates, those most like a picture or the last frame of a clip first. Blocking: it decodes them.

    Previews and crops are no examples, nor is one that cannot be decoded.
    """
    if cloud_modality(modality).view not in (View.PICTURE, View.CLIP):
        return ()
    own, found, decoded_bytes = _small(picture_of(values)), [], 0
    for sample_id, payload in candidates[:CANDIDATES]:
        decoded_bytes += math.prod(payload.shape)
        if payload.HasField("crop") or decoded_bytes > MAX_DECODED_BYTES:
            continue
        try:
            pixels = picture_of(decode_payload(payload, modality))
        except SampleRejected:
            continue
        distance = float(np.abs(own - _small(pixels)).mean())
        found.append(NormalExample(sample_id, distance, fitted(pixels, SIDE_PX, SIDE_PX)))
    return tuple(sorted(found, key=lambda example: example.distance))


def picture_of(values: Values) -> NDArray[np.uint8]:
    """Return the pixels of an image, or of the last frame of a clip."""
    pixels = values[-1] if values.ndim == CLIP_DIMENSIONS else values
    return pixels.astype(np.uint8, copy=False)


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a grey picture of _SIDE pixels a side without its mean brightness."""
    grey = fitted(pixels, 4 * _SIDE, 4 * _SIDE).mean(axis=2, dtype=np.float32)
    small: NDArray[np.float32] = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    centred: NDArray[np.float32] = small - small.mean()
    return centred

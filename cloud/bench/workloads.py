"""Requests of the ingest benchmark, and the bundles that accept them.

A bundle is signed and complete for the check of samples, and nothing was fitted: ingest never opens its networks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.bundle import Artefact, Bundle, InputSpec, Manifest, npz_bytes, sign
from shared.images import encode_jpeg
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, Values, new_sample_id
from shared.wire import sample_to_message
from vedette.v1 import detection_pb2

FEATURES, WINDOW, CHANNELS, IMAGE_SIDE_PIXELS = 8, 32, 8, 256
FILLER = "edge/filler.npz"
ARTEFACT, CALIBRATION_ID = "int8_openvino", "0123456789ab"
_ROWS = InputSpec(channels=tuple(f"feature_{place}" for place in range(FEATURES)))
_WINDOWS = InputSpec(
    channels=tuple(f"channel_{place}" for place in range(CHANNELS)), window_length=WINDOW, window_stride=WINDOW
)
_IMAGES = InputSpec(image_height=IMAGE_SIDE_PIXELS, image_width=IMAGE_SIDE_PIXELS)


@dataclass(frozen=True, slots=True)
class RequestKind:
    """Requests of one kind: `batch_size` samples each."""

    name: str
    modality: Modality
    batch_size: int
    spec: InputSpec
    make: Callable[[np.random.Generator], tuple[Values, bytes | None]]

    def bundle(self, key: Ed25519PrivateKey) -> Bundle:
        """Return the signed bundle that these samples name."""
        return sign(bench_manifest(f"bench-{self.modality}", self.modality, self.spec), {FILLER: npz_bytes({})}, key)

    def request(self, bundle_id: str, seed: int) -> detection_pb2.SubmitRequest:
        """Return a request as an agent sends it; `renew` gives its samples new ids."""
        rng = np.random.default_rng(seed)
        screening = forwarded(bundle_id)
        messages = []
        for place in range(self.batch_size):
            values, encoded = self.make(rng)
            origin = f"readings.csv:{seed * self.batch_size + place}"
            sample = Sample(new_sample_id(), "line-1", self.modality, time.time(), origin, values, encoded)
            messages.append(sample_to_message(sample, screening))
        return detection_pb2.SubmitRequest(samples=messages)


def renew(request: detection_pb2.SubmitRequest) -> None:
    """Give every sample of a request a new id, so that none is a duplicate."""
    for sample in request.samples:
        sample.sample_id = new_sample_id().bytes


def _row(rng: np.random.Generator) -> tuple[Values, bytes | None]:
    return rng.standard_normal(FEATURES).astype(np.float32), None


def _window(rng: np.random.Generator) -> tuple[Values, bytes | None]:
    return rng.standard_normal((WINDOW, CHANNELS)).astype(np.float32), None


def jpeg(rng: np.random.Generator) -> tuple[Values, bytes | None]:
    """Return a picture of a wavy surface with a little noise, and its JPEG file of about 20 kB."""
    rows, columns = np.mgrid[0:IMAGE_SIDE_PIXELS, 0:IMAGE_SIDE_PIXELS] / IMAGE_SIDE_PIXELS
    phases = rng.uniform(0, 2 * np.pi, 3)
    bands = [128 + 60 * np.sin(12 * rows + phase) * np.cos(9 * columns + phase) for phase in phases]
    pixels = np.stack(bands, axis=-1) + rng.normal(0, 6, (IMAGE_SIDE_PIXELS, IMAGE_SIDE_PIXELS, 3))
    values = np.clip(pixels, 0, 255).astype(np.uint8)
    return values, encode_jpeg(values, 90)


WORKLOADS = (
    RequestKind("8 rows", Modality.TABULAR, 8, _ROWS, _row),
    RequestKind("256 rows", Modality.TABULAR, 256, _ROWS, _row),
    RequestKind("8 windows", Modality.SERIES, 8, _WINDOWS, _window),
    RequestKind("8 JPEGs", Modality.IMAGE, 8, _IMAGES, jpeg),
)


def bench_manifest(name: str, modality: Modality, spec: InputSpec) -> Manifest:
    """Return the manifest of a bundle that has FILLER as its only file for devices."""
    artefact = Artefact(
        name=ARTEFACT,
        engine="openvino",
        precision="int8",
        graph=FILLER,
        calibration=FILLER,
        calibration_id=CALIBRATION_ID,
    )
    return Manifest(
        name=name,
        version=1,
        created_at="2026-01-01T00:00:00+00:00",
        modality=modality,
        input=spec,
        artefacts=(artefact,),
        preferred_artefact=artefact.name,
        parity={},
        tolerances={},
        training={},
        files={},
    )


def forwarded(bundle_id: str) -> Screening:
    """Return the screening of a suspicious sample by such a bundle."""
    return Screening(3.5, 0.01, False, Route.FORWARD, bundle_id, CALIBRATION_ID, ARTEFACT)

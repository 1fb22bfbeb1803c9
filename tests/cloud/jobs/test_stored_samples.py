"""Training from judged samples of devices, by a real child process: images and rows."""

import time
from dataclasses import replace

import numpy as np
import pytest

from cloud.jobs.options import JobRequest
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.training_jobs import JobState
from shared.bundle import sign
from shared.images import encode_jpeg
from shared.modality import Modality
from shared.samples import Decision, Opinion, Route, Sample, Screening, Verdict, new_sample_id
from shared.signing_keys import load_signing_key
from shared.wire import encode_payload
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, Kind, add_devices, manifest
from tests.cloud.jobs.conftest import OWNER, Workshop

SIDE = 48
NORMALS, REAL = 120, 12


def values_of(kind: Kind, random: np.random.Generator, *, is_odd: bool) -> np.ndarray:
    """A row of correlated values, or a picture of stripes; with a fault."""
    if kind.modality is Modality.TABULAR:
        row = random.normal(size=len(kind.channels)) + random.normal()
        return (row + 8 * random.normal(size=len(row)) * is_odd).astype(np.float32)
    stripes = 120 + 60 * np.sin(np.arange(SIDE) / 2 + random.uniform(0, 3))
    picture = stripes[np.newaxis, :, np.newaxis] + random.normal(0, 5, (SIDE, SIDE, 3))
    if is_odd:
        picture[10:26, 12:28] = (230, 40, 40)
    return picture.clip(0, 255).astype(np.uint8)


async def send(workshop: Workshop, kind: Kind, bundle_id: str) -> None:
    """Store judged samples: normal ones, then anomalies that a person called real."""
    store, random = workshop.desk.writing, np.random.default_rng(3)
    for place in range(NORMALS + REAL):
        is_odd = place >= NORMALS
        values = values_of(kind, random, is_odd=is_odd)
        as_jpeg = encode_jpeg(values, 95) if kind.modality is Modality.IMAGE and place % 2 else None
        sample = Sample(new_sample_id(), "lab", kind.modality, time.time(), str(place), values)
        screening = Screening(1.0, 0.01, False, Route.FORWARD, bundle_id, "cal", "int8", None)
        payload = encode_payload(values, kind.modality, as_jpeg)
        await store_samples(store, kind.device_id, [Received(sample, screening, payload)], time.time())
        (waiting,) = await waiting_samples(store, 10)
        decision = Decision.ANOMALOUS if is_odd else Decision.NORMAL
        verdict = Verdict(sample.sample_id, decision, 0.5, False, (Opinion("knn", 1.0, 0.5, False),), bundle_id)
        await store_verdicts(store, [(waiting, verdict)])
        if is_odd:
            await add_label(store, sample.sample_id, NewLabel(Label.REAL, "ada"), OWNER)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(CAMERA, marks=pytest.mark.long, id="images"),
        pytest.param(replace(SHUTTLE, channels=SHUTTLE.channels[:4]), id="rows"),
    ],
)
async def test_stored_samples_are_trained_on_and_the_labelled_ones_evaluated(workshop: Workshop, kind: Kind) -> None:
    await add_devices(workshop.desk.writing, kind.device_id)
    key = load_signing_key(workshop.desk.settings.training.signing_key)
    screened_by = await workshop.desk.registry.publish(sign(manifest(kind), {"edge/note.json": b"{}"}, key))
    await send(workshop, kind, screened_by.bundle_id)
    wanted = {
        "data": {"stored": {"device_id": kind.device_id, "bundle_name": kind.bundle_name}},
        "options": {"name": "again", "effort": 0.02, "image_size": 64 if kind is CAMERA else 0},
    }
    job = await workshop.desk.start(JobRequest.model_validate(wanted), OWNER, ())
    assert job is not None
    async with workshop.run():
        done = await workshop.until(job.job_id, lambda job: job.state.is_over, timeout_s=600)
    assert done.state is JobState.DONE, done.reason
    assert done.result is not None
    trained, judged = done.result["training"], done.result["evaluation"]
    assert judged["anomalies"] == REAL
    assert trained["train_samples"] + trained["held_out_samples"] + judged["samples"] - REAL == NORMALS
    assert judged["methods"]["fused"]["auroc"] > 0.9

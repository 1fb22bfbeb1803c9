"""A clip's whole way: from a video file over screener and payload to the cloud's verdict, in each form."""

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.modalities import cloud_modality
from cloud.serving import analysis as analysis_module
from cloud.serving.analysis import EXPLAINED_P_VALUE, Analysis
from cloud.serving.verdicts import decode_batch, judge_batch
from cloud.store.judging import WaitingSample
from edge.routing.budget import UploadBudget
from edge.routing.forwarding import Forwarder
from edge.routing.router import RateMeter, Router
from edge.screener import Screener, load_screener
from edge.settings import RouterSettings
from edge.settings.sources import CameraSettings
from edge.sources import open_source
from shared.modality import Modality
from shared.samples import Decision, Route, Verdict
from shared.wire import undecoded_from_message
from tests.cloud.training.conftest import Trained
from tests.cloud.training.video_bundle import train_on_videos
from tests.cloud.training.video_files import frames, write_video
from vedette.v1 import sample_pb2

WALK = range(30, 60)
ENCODINGS = {
    "lossless": sample_pb2.PAYLOAD_ENCODING_PNG_FRAMES,
    "jpeg": sample_pb2.PAYLOAD_ENCODING_JPEG_FRAMES,
    "h264": sample_pb2.PAYLOAD_ENCODING_H264,
    "features": sample_pb2.PAYLOAD_ENCODING_JPEG_FRAMES,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_on_videos(tmp_path_factory.mktemp("camera"))


@pytest.fixture(scope="module")
def screener(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Screener:
    return load_screener(trained.bundle, "int8_onnxruntime", 4, tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("door") / "door.avi", frames(90, box=WALK, seed=9))


def sent(screener: Screener, walk: Path, form: str) -> tuple[dict[int, sample_pb2.Sample], dict[int, float]]:
    """Return the messages by the clips' last frames, and the screener's p-values; every clip is sent in `form`."""
    source_settings = CameraSettings(id="door", kind="camera", url=str(walk), bundle=Path("b"), batch_size=4)
    settings = RouterSettings.model_validate({"payloads": [form], "mode": "cloud_only", "audit_share": 0})
    budget = UploadBudget(settings)
    forwarder = Forwarder(Router(settings, "door", RateMeter(0.0), budget), settings, budget, lambda alarm: None)
    source = open_source(source_settings, screener.modality, screener.spec, threading.Event())
    messages, p_values = {}, {}
    for batch in source.batches():
        screened = screener.screen(batch)
        assert not screened.rejections
        numbers = [int(origin.rpartition(":")[2]) for origin in batch.origins]
        p_values.update(zip(numbers, screened.p_values.tolist(), strict=True))
        for stored in forwarder.forward(batch, screened, screener).samples:
            message = sample_pb2.Sample.FromString(stored.data)
            messages[int(message.origin.rpartition(":")[2])] = message
    return messages, p_values


def judged(analysis: Analysis, messages: dict[int, sample_pb2.Sample]) -> dict[int, Verdict]:
    batch = []
    for number, message in messages.items():
        sample, screening = undecoded_from_message(message)  # as the service checks it
        waiting = WaitingSample(
            number, sample.sample_id, "one", "door", sample.modality, screening.bundle_id, 0.0, 1, Route.FORWARD
        )
        batch.append((waiting, message.payload))
    verdicts = judge_batch(analysis, decode_batch(batch), bundle_id="door-1", false_alarm_rate=0.02)
    return dict(zip(messages, verdicts, strict=True))


@pytest.fixture(scope="module")
def analysis(trained: Trained) -> Analysis:
    return Analysis.load(trained.bundle, "cpu")


def test_the_screener_finds_the_walk_in_the_clips_of_a_file(screener: Screener, walk: Path) -> None:
    _, p_values = sent(screener, walk, "h264")
    walking = [p for number, p in p_values.items() if number in WALK]
    still = [p for number, p in p_values.items() if number < WALK.start]
    assert len(p_values) > 30
    assert np.median(walking) < 0.05 < np.median(still)


def test_a_lossless_clip_is_judged_by_the_pixels_that_were_screened(
    screener: Screener, walk: Path, analysis: Analysis
) -> None:
    messages, _ = sent(screener, walk, "lossless")
    verdicts = judged(analysis, messages)
    source = open_source(
        CameraSettings(id="door", kind="camera", url=str(walk), bundle=Path("b"), batch_size=4),
        screener.modality, screener.spec, threading.Event(),
    )  # fmt: skip
    clips = [clip for batch in source.batches() for clip in batch.values]
    direct = analysis.judge(clips)
    for verdict, expected in zip(verdicts.values(), direct, strict=True):
        assert isinstance(expected, Verdict)
        assert verdict.p_value == pytest.approx(expected.p_value, rel=1e-6)
        assert verdict.anomaly_map is not None
        is_suspicious = verdict.p_value <= EXPLAINED_P_VALUE
        assert [name for name, _ in verdict.contributions] == (["frame 1", "frame 2"] if is_suspicious else [])
        assert sum(share for _, share in verdict.contributions) == pytest.approx(1.0 if is_suspicious else 0.0)
    # The walker enters between the two frames of this clip, so the second frame is the odd one.
    entering = dict(verdicts[WALK.start + 1].contributions)
    assert entering["frame 2"] > 2 * entering["frame 1"]


def test_frames_of_suspicious_clips_only_are_scored_and_an_error_there_costs_no_verdict(
    screener: Screener, walk: Path, analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages, _ = sent(screener, walk, "lossless")
    scored: list[int] = []
    original = analysis_module.clips_of_earlier_frames

    def count(clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
        scored.append(len(clips))
        return original(clips)

    monkeypatch.setattr(analysis_module, "clips_of_earlier_frames", count)
    whole = judged(analysis, messages)
    suspicious = [verdict for verdict in whole.values() if verdict.p_value <= EXPLAINED_P_VALUE]
    assert 0 < sum(scored) == len(suspicious) < len(whole)

    def fail(clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
        raise RuntimeError("out of memory")

    events: list[str] = []
    monkeypatch.setattr(analysis_module, "clips_of_earlier_frames", fail)
    monkeypatch.setattr(analysis_module.log, "error", lambda event, **fields: events.append(event))
    for number, verdict in judged(analysis, messages).items():
        assert verdict.decision is whole[number].decision is not Decision.UNDECIDED
        assert verdict.p_value == pytest.approx(whole[number].p_value)
        assert verdict.contributions == ()
    assert events == ["frames_not_scored"]


@pytest.mark.parametrize("form", ["jpeg", "h264"])
def test_a_lossy_clip_gets_a_verdict_near_the_lossless_one(
    screener: Screener, walk: Path, analysis: Analysis, form: str
) -> None:
    messages, _ = sent(screener, walk, form)
    whole, _ = sent(screener, walk, "lossless")
    assert {message.payload.encoding for message in messages.values()} == {ENCODINGS[form]}
    sizes = [sum(len(each.payload.data) for each in found.values()) for found in (messages, whole)]
    assert sizes[0] < 0.5 * sizes[1]
    verdicts = judged(analysis, messages)
    walking = [verdict.decision for number, verdict in verdicts.items() if number in WALK]
    assert np.mean([decision is Decision.ANOMALOUS for decision in walking]) > 0.8
    assert all(verdict.decision is not Decision.UNDECIDED for verdict in verdicts.values())


def test_of_a_preview_nobody_says_whether_it_is_normal(screener: Screener, walk: Path, analysis: Analysis) -> None:
    messages, _ = sent(screener, walk, "features")
    for verdict in judged(analysis, messages).values():
        assert verdict.decision is Decision.UNDECIDED
        assert "preview" in verdict.reason
    assert all(message.screening.HasField("anomaly_map") for message in messages.values())
    assert max(len(message.payload.data) for message in messages.values()) < 4000


def test_a_damaged_clip_is_undecided_with_a_reason(screener: Screener, walk: Path, analysis: Analysis) -> None:
    messages, _ = sent(screener, walk, "h264")
    number, message = next(iter(messages.items()))
    data = bytearray(message.payload.data)
    data[-30:] = bytes(30)
    broken = sample_pb2.Payload(encoding=message.payload.encoding, data=bytes(data), shape=message.payload.shape)
    sample, _ = undecoded_from_message(message)
    waiting = WaitingSample(number, sample.sample_id, "one", "door", Modality.VIDEO, "door-1", 0.0, 1, Route.FORWARD)
    (verdict,) = judge_batch(analysis, decode_batch([(waiting, broken)]), bundle_id="door-1", false_alarm_rate=0.02)
    assert verdict.decision is Decision.UNDECIDED
    assert "H.264" in verdict.reason


def test_the_console_shows_a_clip_as_one() -> None:
    assert cloud_modality(Modality.VIDEO).view == "clip"

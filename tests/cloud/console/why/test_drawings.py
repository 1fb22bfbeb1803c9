"""What the console draws follows the view of the modality."""

import uuid
from dataclasses import replace

import numpy as np
import pytest
from fastapi import HTTPException

from cloud.console.why import drawings, media
from cloud.console.why.drawings import drawing, shown_frames, thumbnail
from cloud.evidence.contents import Contents
from cloud.evidence.reading import Evidence, Surroundings, _evidence
from cloud.evidence.series import Window, series_plot
from cloud.modalities import View
from cloud.store.contents import StoredMap, StoredPayload
from cloud.store.context_queries import DeviceState
from cloud.store.queries import JudgedSample
from cloud.store.verdict_columns import VerdictRecord
from shared.images import decode_image
from shared.modality import Modality
from shared.samples import Decision, Route, Values
from vedette.v1 import sample_pb2

VALUES: dict[Modality, Values] = {
    Modality.TABULAR: np.array([1.0, 2.0], np.float32),
    Modality.SERIES: np.zeros((20, 2), np.float32),
    Modality.IMAGE: np.zeros((8, 10, 3), np.uint8),
    Modality.VIDEO: np.arange(40, dtype=np.uint8).repeat(8 * 10 * 3).reshape(40, 8, 10, 3),
}
KINDS = {Modality.TABULAR: "tabular", Modality.SERIES: "series", Modality.IMAGE: "image", Modality.VIDEO: "clip"}


def sample(modality: Modality) -> JudgedSample:
    record = VerdictRecord(
        number=1,
        decision=Decision.ANOMALOUS,
        sample_id=uuid.uuid4(),
        device_id="press-1",
        source_id="line",
        origin="1",
        modality=modality,
        edge_p_value=0.1,
        p_value=0.01,
        route=Route.FORWARD,
        judged_at_s=2.0,
        captured_at_s=0.0,
        received_at_s=1.0,
        edge_score=None,
        edge_extrapolated=False,
        edge_bundle_id="a-1-0",
        calibration_id="",
        artefact="int8",
        payload_bytes=1,
        extrapolated=False,
        bundle_id="a-1-0",
        reason="",
        contributions=[],
        opinions=[],
    )
    return JudgedSample(record, ("pressure", "speed"))


def contents(modality: Modality) -> Contents:
    return Contents(StoredPayload(modality, True, sample_pb2.Payload(), None), VALUES[modality], None)


def evidence(judged: JudgedSample, shown: Contents) -> Evidence:
    no_maps = StoredMap(1, 1, b"\x00")
    around = Surroundings((), (), {}, (), DeviceState.ENROLLED, "default", {}, {})
    found = _evidence(judged, (shown.payload, no_maps), around, None, "")
    values = shown.values
    series = None
    if values is not None and judged.record.modality is Modality.SERIES:
        series = series_plot(Window(0.0, "", values.astype(np.float32)), [], judged.channels, {}, None, None)
    return replace(found, contents=shown, series=series)


def test_every_view_has_a_drawing() -> None:
    assert set(drawings._DRAWINGS) == set(View)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_sample_is_drawn_by_its_modality(modality: Modality) -> None:
    assert drawing(evidence(sample(modality), contents(modality)), "/m")["kind"] == KINDS[modality]
    kind = thumbnail(sample(modality).record)["kind"]
    assert kind == ("bars" if modality is Modality.TABULAR else "picture")


def test_a_clip_shows_some_of_its_frames_in_order() -> None:
    drawn = drawing(evidence(sample(Modality.VIDEO), contents(Modality.VIDEO)), "/m")
    numbers = [frame["number"] for frame in drawn["frames"]]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1], len(numbers), drawn["frames_total"]) == (0, 39, drawings.MAX_FRAMES, 40)
    assert shown_frames(3) == [0, 1, 2]


def test_frames_carry_their_shares_and_the_highest_is_marked() -> None:
    judged = sample(Modality.VIDEO)
    shares = [("frame 1", 0.1), ("frame 2", 0.7), ("frame 3", 0.2)]
    record = judged.record.model_copy(update={"contributions": shares})
    clip = contents(Modality.VIDEO)
    assert clip.values is not None
    three = replace(clip, values=clip.values[:3], cloud_map=np.zeros((4, 4), np.uint8))
    drawn = drawing(evidence(replace(judged, record=record), three), "/m")
    assert [frame["share"] for frame in drawn["frames"]] == [0.1, 0.7, 0.2]
    assert [frame["is_highest"] for frame in drawn["frames"]] == [False, True, False]
    assert [frame["is_last"] for frame in drawn["frames"]] == [False, False, True]
    assert drawn["cloud_map"].endswith("/cloud_map.png")
    equal = record.model_copy(update={"contributions": [(name, 1 / 3) for name, _ in shares]})
    for without in (equal, judged.record):
        frames = drawing(evidence(replace(judged, record=without), three), "/m")["frames"]
        assert not any(frame["is_highest"] for frame in frames)


def test_the_thumbnail_of_a_clip_is_its_last_frame() -> None:
    assert decode_image(media._thumbnail(contents(Modality.VIDEO)))[0, 0, 0] == 39


def test_a_frame_of_a_clip_is_a_picture_and_one_beyond_its_end_is_not_found() -> None:
    clip = contents(Modality.VIDEO)
    assert decode_image(media._frame(clip, 7))[0, 0, 0] == 7
    for number in (-1, 40):
        with pytest.raises(HTTPException, match="40 frames"):
            media._frame(clip, number)
    with pytest.raises(HTTPException, match="not a clip"):
        media._frame(contents(Modality.IMAGE), 0)

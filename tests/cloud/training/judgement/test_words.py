"""Sentences of the judgement at the end of training."""

import numpy as np
import pytest

from cloud.training.judgement.figures import Copies, CorruptionFigures, Drift, Figures, HeldOutResolution
from cloud.training.judgement.measure import Judges, drift, measure
from cloud.training.judgement.words import sentences, warnings_of


def figures(
    held_out: int = 20, found: int = 8, drifted: Drift | None = None, *, alarms: float = 1.0, per_day: float = 1440.0
) -> Figures:
    kind = CorruptionFigures(copies=10, screener=found, fused=found, judged_anomalous=found, forwarded=found)
    return Figures(
        unit="images",
        train=40,
        resolution=HeldOutResolution(
            held_out=held_out,
            separate=held_out,
            held_out_share=0.3,
            false_alarms_per_day=alarms,
            samples_per_day=per_day,
        ),
        corruptions={"stain": kind, "blur": kind},
        forward_p_value=0.05,
        verdict_rate=0.01,
        audit_share=0.01,
        drift=drifted or Drift(),
    )


def test_too_few_samples_are_said_with_the_number_that_would_do() -> None:
    text = " ".join(sentences(figures()))
    assert "20 held-out images resolve 1 in 21; 1 false alarm a day at 1 image a minute needs 1,439" in text
    assert "give about 4,730 more, or expect 69 false alarms a day" in text
    assert any("Too few normal samples" in warning for warning in warnings_of(figures()))


@pytest.mark.parametrize(("held_out", "resolved"), [(1438, False), (1439, True), (4000, True)])
def test_the_bound_of_the_resolution_is_exact(held_out: int, resolved: bool) -> None:
    assert figures(held_out).resolution.is_resolved is resolved
    assert (figures(held_out).resolution.more == 0) is resolved
    assert bool(warnings_of(figures(held_out))) is not resolved


def test_overlapping_windows_resolve_as_many_as_are_separate() -> None:
    resolution = figures(2000).resolution.model_copy(update={"separate": 500})
    overlapping = figures(2000).model_copy(update={"unit": "windows", "resolution": resolution})
    assert figures(2000).resolution.is_resolved
    assert not resolution.is_resolved
    assert resolution.more == 12_520  # (1,439 - 500) * 4 / 0.3
    text = sentences(overlapping)[0]
    assert text.startswith(
        "2,000 held-out windows resolve 1 in 501 (they overlap and count as about 500 separate ones)"
    )
    assert any("Too few normal samples" in warning for warning in warnings_of(overlapping))


def copied(held_out: int, normals: int, **settings: float) -> Figures:
    return figures(2000).model_copy(update={"copies": Copies(held_out=held_out, normals=normals), **settings})


def test_copies_beyond_their_bound_are_the_first_warning() -> None:
    assert warnings_of(copied(201, 201))[0].startswith("201 of 2,000 held-out images are copies of training images")
    assert "201 of 2,040 normal images repeat an earlier one" in sentences(copied(200, 201))[2]
    assert not warnings_of(copied(200, 201))
    assert not warnings_of(copied(201, 201, max_copied_share=0.2))
    assert "1,000 of 2,040 normal images are copies of others" in warnings_of(copied(0, 1000))[0]
    assert not any("Exact copies" in sentence for sentence in sentences(figures(2000)))


def test_the_rate_is_named_with_its_origin() -> None:
    assert sentences(figures())[1] == "The rate of 1 image a minute is an assumption: set yours with --samples-per-day."
    given = figures(per_day=8640.0)
    resolution = given.resolution.model_copy(update={"rate_origin": "judgement.samples_per_day"})
    given = given.model_copy(update={"resolution": resolution})
    assert sentences(given)[1] == "The rate of 8,640 images a day is from judgement.samples_per_day."
    assert "0.25 images a day" in sentences(figures(per_day=0.25))[1]


def test_no_alarms_and_more_alarms_than_samples_need_no_data() -> None:
    assert figures(alarms=0).resolution.is_resolved
    assert "raises no alarms" in sentences(figures(alarms=0))[0]
    assert figures(alarms=5000).resolution.is_resolved


def test_misses_are_named_and_warned_of() -> None:
    poor = figures(4000, found=1)
    assert any("mostly misses: stain, blur" in sentence for sentence in sentences(poor))
    assert any("10% of the corrupted copies" in warning for warning in warnings_of(poor))
    assert not warnings_of(figures(4000, found=3))


def test_drift_of_a_channel_and_of_scores_is_found() -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    last[:, 1] += 2.0
    scores = np.concatenate([rng.normal(size=200), 3 + rng.normal(size=100)])
    found = drift(("calm", "moving"), first, last, scores, 0.05)
    assert len(found.channels) == 1
    assert found.channels[0].startswith("moving")
    assert found.later_forwarded > 50
    assert len(warnings_of(figures(4000, drifted=found))) == 2
    assert not drift(("a", "b"), first, first[::-1], rng.normal(size=300), 0.05).channels


def test_drift_of_constant_and_missing_channels_is_finite() -> None:
    first = np.stack([np.full(50, 3.0), np.full(50, np.nan)], axis=1)
    last = np.stack([np.full(50, 4.0), np.full(50, np.nan)], axis=1)
    found = drift(("constant", "missing"), first, last, np.zeros(10), 0.05)
    assert found.channels == ("constant 3 at first, 4 at last",)
    assert np.isfinite(found.largest)
    assert found.later == 0


def test_the_time_limit_leaves_whole_rounds_of_every_kind() -> None:
    judges = Judges(lambda samples: np.full(len(samples), 0.5), lambda samples: samples[:, 0])
    copies = {"a": np.zeros((9, 2)), "b": np.ones((3, 2)), "none": np.zeros((0, 2))}
    whole = measure(copies, judges, limit_s=60.0)
    assert not whole.unfinished
    assert {kind: len(judged.samples) for kind, judged in whole.copies.items()} == {"a": 9, "b": 3}
    assert whole.figures(0.01, 0.01, 0.05)["a"].fused == 9
    assert whole.figures(0.01, 0.01, 0.05)["a"].forwarded == 0
    cut = measure(copies, judges, limit_s=-1.0)
    assert cut.unfinished
    assert {kind: len(judged.samples) for kind, judged in cut.copies.items()} == {"a": 4, "b": 3}

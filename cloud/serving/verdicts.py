"""Verdicts on a batch of stored samples: each sample gets one, even where others in the batch fail."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloud.serving.batches import Pair
from cloud.serving.bounded_judge import is_out_of_memory
from cloud.serving.ports import EarlyDecision, Judge
from cloud.store.judging import WaitingSample
from cloud.store.segments import LostValue
from shared.errors import ConnectionFailedError, SampleRejected, StorageError
from shared.logs import EventLog, Throttle
from shared.samples import Decision, ImageCrop, Route, Values, Verdict
from shared.wire import MAX_MAP_CELLS, decode_crop, decode_payload

_Answer: TypeAlias = Verdict | Exception
_Readable: TypeAlias = tuple[int, Values, ImageCrop | None, bool]

_LOG = EventLog("serving")
_throttle = Throttle()


@dataclass(frozen=True, slots=True)
class Decoded:
    """Sample with its values and the crop that they show, or the error that shows why it cannot be read."""

    waiting: WaitingSample
    values: Values | None = None
    crop: ImageCrop | None = None
    error: Exception | None = None


def decode_batch(batch: Sequence[Pair]) -> list[Decoded]:
    """Return the decoded samples, in order; a payload that cannot be decoded has its error instead. Blocking."""
    decoded = []
    for waiting, payload in batch:
        try:
            if payload is None:
                raise SampleRejected("its payload is gone from the store")
            if isinstance(payload, LostValue):
                what = "is gone" if payload.is_gone else "was not judged"
                raise SampleRejected(f"its payload {what}: {payload.reason}")
            decoded.append(Decoded(waiting, decode_payload(payload, waiting.modality), decode_crop(payload)))
        except Exception as error:
            decoded.append(Decoded(waiting, error=error))
    return decoded


def judge_batch(
    judge: Judge,
    batch: Sequence[Decoded],
    *,
    bundle_id: str,
    false_alarm_rate: float,
    adaptive_depth: bool = False,
) -> list[Verdict]:
    """Return one verdict for each sample, in order. Blocking.

    With `adaptive_depth`, analyzers that cannot change the decision are left out, except for audits.

    A sample that cannot be read or judged is UNDECIDED, with the reason. If the analysis fails on a batch, the batch
    is halved until each failing sample is in a batch of its own. Raises ConnectionFailedError or StorageError if
    replicas of the analysis cannot be reached or cannot read the bundle: no sample is judged then.
    """
    answers: list[_Answer] = [item.error or SampleRejected("not judged") for item in batch]
    readable: list[_Readable] = [
        (position, item.values, item.crop, item.waiting.route is Route.AUDIT)
        for position, item in enumerate(batch)
        if item.values is not None
    ]
    rate = false_alarm_rate if adaptive_depth else None
    for position, answer in _judge_halving(judge, readable, rate):
        answers[position] = answer
    verdicts = [
        _verdict(item.waiting, answer, bundle_id, false_alarm_rate) for item, answer in zip(batch, answers, strict=True)
    ]
    return [
        verdict if item.crop is None else _crop_verdict(verdict) for verdict, item in zip(verdicts, batch, strict=True)
    ]


def crashed(waiting: WaitingSample, error: Exception, bundle_id: str) -> Verdict:
    """Return the verdict on a sample that ends the thread in which it is judged."""
    return undecided(waiting, _failure(error), bundle_id)


def undecided(waiting: WaitingSample, reason: str, bundle_id: str = "") -> Verdict:
    """Return the verdict on a sample that could not be judged; an operator decides instead."""
    return Verdict(
        sample_id=waiting.sample_id,
        decision=Decision.UNDECIDED,
        bundle_id=bundle_id,
        reason=reason,
    )


def _judge_halving(judge: Judge, readable: Sequence[_Readable], early_rate: float | None) -> list[tuple[int, _Answer]]:
    if not readable:
        return []
    try:
        values, crops = [item[1] for item in readable], [item[2] for item in readable]
        if early_rate is None:
            answers = judge.judge(values, crops)
        else:
            answers = judge.judge(values, crops, EarlyDecision(early_rate, [item[3] for item in readable]))
        if len(answers) != len(readable):
            raise RuntimeError(f"the analysis answered {len(answers)} of {len(readable)} samples")
        return [(position, answer) for (position, *_), answer in zip(readable, answers, strict=True)]
    except (StorageError, ConnectionFailedError):
        raise
    except Exception as error:
        if len(readable) == 1:
            return [(readable[0][0], error)]
    # Outside of the handler: the error's traceback holds the tensors of the batch.
    middle = len(readable) // 2
    return [
        *_judge_halving(judge, readable[:middle], early_rate),
        *_judge_halving(judge, readable[middle:], early_rate),
    ]


def _verdict(waiting: WaitingSample, answer: _Answer, bundle_id: str, false_alarm_rate: float) -> Verdict:
    if isinstance(answer, SampleRejected):
        return undecided(waiting, f"not usable: {answer}", bundle_id)
    if isinstance(answer, Exception):
        if count := _throttle.allow(f"{bundle_id} {type(answer).__name__}"):
            error = f"{type(answer).__name__}: {answer}"
            _LOG.error("analysis_failed", sample_id=waiting.sample_id, bundle=bundle_id, error=error, count=count)
        return undecided(waiting, _failure(answer), bundle_id)
    if answer.p_value is None or not math.isfinite(answer.p_value):
        return undecided(waiting, f"the analysis failed: its p-value is {answer.p_value}", bundle_id)
    anomaly_map = answer.anomaly_map
    if anomaly_map is not None and not _can_be_sent(anomaly_map):
        anomaly_map = None  # a verdict with a map this large could not be sent
    return replace(
        answer,
        sample_id=waiting.sample_id,
        decision=Decision.ANOMALOUS if answer.p_value <= false_alarm_rate else Decision.NORMAL,
        bundle_id=bundle_id,
        anomaly_map=anomaly_map,
        reason=_bound_reason(answer.left_out),
    )


def _bound_reason(left_out: Sequence[str]) -> str:
    """Return the note on a verdict whose p-value is an upper bound; empty for others."""
    if not left_out:
        return ""
    return f"the p-value is an upper bound: {', '.join(left_out)} cannot change the decision and did not score it"


def _failure(error: Exception) -> str:
    """Return the reason for a verdict: the kind of an error without its text, which may hold paths of the server."""
    name = type(error).__name__
    kind = "out of memory" if is_out_of_memory(error) else name
    return f"the analysis failed ({kind}). The log of the service has the details."


def _crop_verdict(verdict: Verdict) -> Verdict:
    """Return the verdict on a whole image, given the verdict on a crop of it.

    An anomaly in the crop is an anomaly of the image. A normal crop leaves the image UNDECIDED.
    """
    if verdict.decision is not Decision.NORMAL:
        return verdict
    reason = "only a crop of the image was uploaded, and it shows no anomaly"
    return replace(verdict, decision=Decision.UNDECIDED, reason=reason)


def _can_be_sent(anomaly_map: NDArray[Any]) -> bool:
    return anomaly_map.ndim == 2 and anomaly_map.dtype == np.uint8 and 0 < anomaly_map.size <= MAX_MAP_CELLS

"""From a batch of stored samples to verdicts: every sample gets one, whatever happens to its neighbours."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloud.store.judging import Waiting
from shared.errors import SampleRejected
from shared.samples import Decision, ImageCrop, Values, Verdict
from shared.wire import MAX_MAP_CELLS, decode_crop, decode_payload
from vedette.v1 import sample_pb2

_Answer: TypeAlias = Verdict | Exception
_Readable: TypeAlias = tuple[int, Values, ImageCrop | None]


class Judge(Protocol):
    """What a batch is judged by: `cloud.serving.analysis.Analysis`."""

    def judge(self, values: Sequence[Values], parts: Sequence[ImageCrop | None]) -> list[Verdict | SampleRejected]:
        """One answer for each sample, in order; `parts`: which part of its image each is, None for all of it."""
        ...


def judge_batch(
    judge: Judge,
    batch: Sequence[tuple[Waiting, sample_pb2.Payload | None]],
    *,
    bundle_id: str,
    false_alarm_rate: float,
) -> list[Verdict]:
    """One verdict for each sample, in order. Blocking.

    A sample that cannot be read or judged is UNDECIDED, with the reason. If the analysis fails on a batch, the batch
    is halved until the samples it fails on stand alone.
    """
    answers: list[_Answer] = [SampleRejected("not judged")] * len(batch)
    readable: list[_Readable] = []
    for position, (waiting, payload) in enumerate(batch):
        try:
            if payload is None:
                raise SampleRejected("its payload is gone from the store")
            readable.append((position, decode_payload(payload, waiting.modality), decode_crop(payload)))
        except Exception as error:
            answers[position] = error
    for position, answer in _judge_halving(judge, readable):
        answers[position] = answer
    verdicts = [
        _verdict(waiting, answer, bundle_id, false_alarm_rate)
        for (waiting, _), answer in zip(batch, answers, strict=True)
    ]
    return [
        _of_a_part(verdict) if payload is not None and payload.HasField("crop") else verdict
        for verdict, (_, payload) in zip(verdicts, batch, strict=True)
    ]


def undecided(waiting: Waiting, reason: str, bundle_id: str = "") -> Verdict:
    """The verdict on a sample that could not be judged: an operator has to look."""
    return Verdict(
        sample_id=waiting.sample_id,
        decision=Decision.UNDECIDED,
        bundle_id=bundle_id,
        judged_at_s=time.time(),
        reason=reason,
    )


def _judge_halving(judge: Judge, readable: Sequence[_Readable]) -> list[tuple[int, _Answer]]:
    if not readable:
        return []
    try:
        answers = judge.judge([values for _, values, _ in readable], [part for *_, part in readable])
        if len(answers) != len(readable):
            raise RuntimeError(f"the analysis answered {len(answers)} of {len(readable)} samples")
    except Exception as error:
        if len(readable) == 1:
            return [(readable[0][0], error)]
        middle = len(readable) // 2
        return _judge_halving(judge, readable[:middle]) + _judge_halving(judge, readable[middle:])
    return [(position, answer) for (position, *_), answer in zip(readable, answers, strict=True)]


def _verdict(waiting: Waiting, answer: _Answer, bundle_id: str, false_alarm_rate: float) -> Verdict:
    if isinstance(answer, SampleRejected):
        return undecided(waiting, f"not usable: {answer}", bundle_id)
    if isinstance(answer, Exception):
        return undecided(waiting, f"the analysis failed: {type(answer).__name__}: {answer}", bundle_id)
    if not math.isfinite(answer.p_value):
        return undecided(waiting, f"the analysis failed: its p-value is {answer.p_value}", bundle_id)
    anomaly_map = answer.anomaly_map
    if anomaly_map is not None and not _can_be_sent(anomaly_map):
        anomaly_map = None  # a verdict without its picture is better than one that cannot be sent
    return replace(
        answer,
        sample_id=waiting.sample_id,
        decision=Decision.ANOMALOUS if answer.p_value <= false_alarm_rate else Decision.NORMAL,
        bundle_id=bundle_id,
        judged_at_s=time.time(),
        anomaly_map=anomaly_map,
    )


def _of_a_part(verdict: Verdict) -> Verdict:
    """What is anomalous in a part is so in the whole; of what does not show, nobody can say that it is normal."""
    if verdict.decision is not Decision.NORMAL:
        return verdict
    reason = "only a part of the image travelled, and in it nothing is anomalous"
    return replace(verdict, decision=Decision.UNDECIDED, reason=reason)


def _can_be_sent(anomaly_map: NDArray[Any]) -> bool:
    return anomaly_map.ndim == 2 and anomaly_map.dtype == np.uint8 and 0 < anomaly_map.size <= MAX_MAP_CELLS

"""Conversion between the types of the port `Judge` and the messages of its replicas.

Messages hold numbers, texts and the bytes of arrays. Nothing in them executes when it is read.
"""

from collections.abc import Sequence

import numpy as np

from cloud.serving.ports import EarlyDecision
from shared.errors import (
    BundleError,
    BundleIntegrityError,
    BundleMismatchError,
    EngineError,
    SampleRejected,
    SettingsError,
    StorageError,
    UntrustedBundleError,
    WorkerCrashedError,
)
from shared.samples import ImageCrop, Opinion, Region, Values, Verdict
from vedette.v1 import judge_pb2, sample_pb2

_KNOWN_ERRORS: dict[str, type[Exception]] = {
    error.__name__: error
    for error in (
        BundleError,
        BundleIntegrityError,
        BundleMismatchError,
        MemoryError,
        SettingsError,
        StorageError,
        UntrustedBundleError,
        WorkerCrashedError,
    )
}


def request_of(
    bundle: judge_pb2.BundleReference,
    values: Sequence[Values],
    crops: Sequence[ImageCrop | None],
    early: EarlyDecision | None,
) -> judge_pb2.JudgeRequest:
    """Return the request to judge these samples."""
    samples = [_sample_message(each, crop) for each, crop in zip(values, crops, strict=True)]
    request = judge_pb2.JudgeRequest(bundle=bundle, samples=samples)
    if early is not None:
        request.early_false_alarm_rate = early.false_alarm_rate
        request.exhaustive.extend(early.exhaustive)
    return request


def samples_of(
    request: judge_pb2.JudgeRequest,
) -> tuple[list[Values], list[ImageCrop | None], EarlyDecision | None]:
    """Return the arguments of `Judge.judge`."""
    values = [_values(sample) for sample in request.samples]
    crops = [_crop(sample.crop) if sample.HasField("crop") else None for sample in request.samples]
    early = None
    if request.HasField("early_false_alarm_rate"):
        early = EarlyDecision(request.early_false_alarm_rate, list(request.exhaustive))
    return values, crops, early


def reply_of(answers: Sequence[Verdict | SampleRejected], seconds: float) -> judge_pb2.JudgeReply:
    """Return the reply with the answers of `Judge.judge`, made in `seconds`."""
    messages = [
        judge_pb2.SampleAnswer(rejection=str(answer))
        if isinstance(answer, SampleRejected)
        else judge_pb2.SampleAnswer(judgement=_judgement_message(answer))
        for answer in answers
    ]
    return judge_pb2.JudgeReply(answers=messages, seconds=seconds)


def failure_reply(error: Exception) -> judge_pb2.JudgeReply:
    """Return the reply that `answers_of` raises as an error of the same kind."""
    return judge_pb2.JudgeReply(failure=judge_pb2.Failure(kind=_kind(error), text=str(error)))


def answers_of(reply: judge_pb2.JudgeReply) -> list[Verdict | SampleRejected]:
    """Return the answers of a reply; raises the error of a failure, EngineError if its kind is not a known one."""
    if reply.HasField("failure"):
        known = _KNOWN_ERRORS.get(reply.failure.kind)
        if known is not None:
            raise known(reply.failure.text)
        raise EngineError(f"A replica of the analysis failed: {reply.failure.kind}: {reply.failure.text}")
    return [
        _verdict(answer.judgement) if answer.WhichOneof("answer") == "judgement" else SampleRejected(answer.rejection)
        for answer in reply.answers
    ]


def _kind(error: Exception) -> str:
    for base in type(error).__mro__:
        if base.__name__ in _KNOWN_ERRORS:
            return base.__name__
    return type(error).__name__


def _sample_message(values: Values, crop: ImageCrop | None) -> judge_pb2.SampleValues:
    pixels = values.itemsize == 1
    data = np.ascontiguousarray(values, np.uint8 if pixels else np.dtype("<f4")).tobytes()
    message = judge_pb2.SampleValues(pixels=pixels, data=data, shape=values.shape)
    if crop is not None:
        message.crop.height, message.crop.width = crop.height, crop.width
        if (region := crop.region) is not None:
            place = judge_pb2.Rectangle(top=region.top, left=region.left, height=region.height, width=region.width)
            message.crop.region.CopyFrom(place)
    return message


def _values(message: judge_pb2.SampleValues) -> Values:
    shape = tuple(message.shape)
    if message.pixels:
        return np.frombuffer(message.data, np.uint8).reshape(shape)
    return np.frombuffer(message.data, np.dtype("<f4")).reshape(shape).astype(np.float32, copy=False)


def _crop(message: judge_pb2.CropPlace) -> ImageCrop:
    place = message.region
    region = Region(place.top, place.left, place.height, place.width) if message.HasField("region") else None
    return ImageCrop(message.height, message.width, region)


def _judgement_message(verdict: Verdict) -> judge_pb2.SampleJudgement:
    message = judge_pb2.SampleJudgement(
        score=verdict.score,
        p_value=verdict.p_value,
        extrapolated=verdict.extrapolated,
        opinions=[
            sample_pb2.AnalyzerOpinion(
                analyzer=each.analyzer, score=each.score, p_value=each.p_value, extrapolated=each.extrapolated
            )
            for each in verdict.opinions
        ],
        contributions=[sample_pb2.Contribution(name=name, share=share) for name, share in verdict.contributions],
        left_out=verdict.left_out,
    )
    if (found := verdict.anomaly_map) is not None and found.ndim == 2 and found.itemsize == 1:
        message.anomaly_map.height, message.anomaly_map.width = found.shape
        message.anomaly_map.values = found.tobytes()
    return message


def _verdict(message: judge_pb2.SampleJudgement) -> Verdict:
    anomaly_map = None
    if message.HasField("anomaly_map"):
        shape = message.anomaly_map.height, message.anomaly_map.width
        anomaly_map = np.frombuffer(message.anomaly_map.values, np.uint8).reshape(shape)
    return Verdict(
        score=message.score,
        p_value=message.p_value if message.HasField("p_value") else None,
        extrapolated=message.extrapolated,
        opinions=tuple(
            Opinion(each.analyzer, each.score, each.p_value, each.extrapolated) for each in message.opinions
        ),
        anomaly_map=anomaly_map,
        contributions=tuple((item.name, item.share) for item in message.contributions),
        left_out=tuple(message.left_out),
    )

from vedette.v1 import sample_pb2 as _sample_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JudgeRequest(_message.Message):
    __slots__ = ("bundle", "samples", "early_false_alarm_rate", "exhaustive")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    EARLY_FALSE_ALARM_RATE_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTIVE_FIELD_NUMBER: _ClassVar[int]
    bundle: BundleReference
    samples: _containers.RepeatedCompositeFieldContainer[SampleValues]
    early_false_alarm_rate: float
    exhaustive: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, bundle: _Optional[_Union[BundleReference, _Mapping]] = ..., samples: _Optional[_Iterable[_Union[SampleValues, _Mapping]]] = ..., early_false_alarm_rate: _Optional[float] = ..., exhaustive: _Optional[_Iterable[bool]] = ...) -> None: ...

class BundleReference(_message.Message):
    __slots__ = ("bundle_id", "manifest_sha256", "trusted_keys")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_KEYS_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    manifest_sha256: bytes
    trusted_keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, bundle_id: _Optional[str] = ..., manifest_sha256: _Optional[bytes] = ..., trusted_keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SampleValues(_message.Message):
    __slots__ = ("pixels", "data", "shape", "crop")
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    pixels: bool
    data: bytes
    shape: _containers.RepeatedScalarFieldContainer[int]
    crop: CropPlace
    def __init__(self, pixels: _Optional[bool] = ..., data: _Optional[bytes] = ..., shape: _Optional[_Iterable[int]] = ..., crop: _Optional[_Union[CropPlace, _Mapping]] = ...) -> None: ...

class CropPlace(_message.Message):
    __slots__ = ("height", "width", "region")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    region: Rectangle
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., region: _Optional[_Union[Rectangle, _Mapping]] = ...) -> None: ...

class Rectangle(_message.Message):
    __slots__ = ("top", "left", "height", "width")
    TOP_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    top: int
    left: int
    height: int
    width: int
    def __init__(self, top: _Optional[int] = ..., left: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class JudgeReply(_message.Message):
    __slots__ = ("answers", "failure", "seconds")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[SampleAnswer]
    failure: Failure
    seconds: float
    def __init__(self, answers: _Optional[_Iterable[_Union[SampleAnswer, _Mapping]]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., seconds: _Optional[float] = ...) -> None: ...

class SampleAnswer(_message.Message):
    __slots__ = ("judgement", "rejection")
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    judgement: SampleJudgement
    rejection: str
    def __init__(self, judgement: _Optional[_Union[SampleJudgement, _Mapping]] = ..., rejection: _Optional[str] = ...) -> None: ...

class SampleJudgement(_message.Message):
    __slots__ = ("score", "p_value", "extrapolated", "opinions", "anomaly_map", "contributions", "left_out")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    EXTRAPOLATED_FIELD_NUMBER: _ClassVar[int]
    OPINIONS_FIELD_NUMBER: _ClassVar[int]
    ANOMALY_MAP_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    score: float
    p_value: float
    extrapolated: bool
    opinions: _containers.RepeatedCompositeFieldContainer[_sample_pb2.AnalyzerOpinion]
    anomaly_map: _sample_pb2.AnomalyMap
    contributions: _containers.RepeatedCompositeFieldContainer[_sample_pb2.Contribution]
    left_out: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, score: _Optional[float] = ..., p_value: _Optional[float] = ..., extrapolated: _Optional[bool] = ..., opinions: _Optional[_Iterable[_Union[_sample_pb2.AnalyzerOpinion, _Mapping]]] = ..., anomaly_map: _Optional[_Union[_sample_pb2.AnomalyMap, _Mapping]] = ..., contributions: _Optional[_Iterable[_Union[_sample_pb2.Contribution, _Mapping]]] = ..., left_out: _Optional[_Iterable[str]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "text")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("running_replicas", "problem")
    RUNNING_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    running_replicas: int
    problem: str
    def __init__(self, running_replicas: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

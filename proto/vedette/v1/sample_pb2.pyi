import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Modality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODALITY_UNSPECIFIED: _ClassVar[Modality]
    MODALITY_TABULAR: _ClassVar[Modality]
    MODALITY_SERIES: _ClassVar[Modality]
    MODALITY_IMAGE: _ClassVar[Modality]
    MODALITY_VIDEO: _ClassVar[Modality]

class Route(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTE_UNSPECIFIED: _ClassVar[Route]
    ROUTE_ACCEPT: _ClassVar[Route]
    ROUTE_FORWARD: _ClassVar[Route]
    ROUTE_ALARM: _ClassVar[Route]
    ROUTE_AUDIT: _ClassVar[Route]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_NORMAL: _ClassVar[Decision]
    DECISION_ANOMALOUS: _ClassVar[Decision]
    DECISION_UNDECIDED: _ClassVar[Decision]

class PayloadEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAYLOAD_ENCODING_UNSPECIFIED: _ClassVar[PayloadEncoding]
    PAYLOAD_ENCODING_FLOAT32: _ClassVar[PayloadEncoding]
    PAYLOAD_ENCODING_FLOAT32_ZSTD: _ClassVar[PayloadEncoding]
    PAYLOAD_ENCODING_PNG: _ClassVar[PayloadEncoding]
    PAYLOAD_ENCODING_JPEG: _ClassVar[PayloadEncoding]
    PAYLOAD_ENCODING_PNG_FRAMES: _ClassVar[PayloadEncoding]
    PAYLOAD_ENCODING_JPEG_FRAMES: _ClassVar[PayloadEncoding]
    PAYLOAD_ENCODING_H264: _ClassVar[PayloadEncoding]
MODALITY_UNSPECIFIED: Modality
MODALITY_TABULAR: Modality
MODALITY_SERIES: Modality
MODALITY_IMAGE: Modality
MODALITY_VIDEO: Modality
ROUTE_UNSPECIFIED: Route
ROUTE_ACCEPT: Route
ROUTE_FORWARD: Route
ROUTE_ALARM: Route
ROUTE_AUDIT: Route
DECISION_UNSPECIFIED: Decision
DECISION_NORMAL: Decision
DECISION_ANOMALOUS: Decision
DECISION_UNDECIDED: Decision
PAYLOAD_ENCODING_UNSPECIFIED: PayloadEncoding
PAYLOAD_ENCODING_FLOAT32: PayloadEncoding
PAYLOAD_ENCODING_FLOAT32_ZSTD: PayloadEncoding
PAYLOAD_ENCODING_PNG: PayloadEncoding
PAYLOAD_ENCODING_JPEG: PayloadEncoding
PAYLOAD_ENCODING_PNG_FRAMES: PayloadEncoding
PAYLOAD_ENCODING_JPEG_FRAMES: PayloadEncoding
PAYLOAD_ENCODING_H264: PayloadEncoding

class Payload(_message.Message):
    __slots__ = ("encoding", "data", "shape", "crop", "crc32")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    encoding: PayloadEncoding
    data: bytes
    shape: _containers.RepeatedScalarFieldContainer[int]
    crop: ImageCrop
    crc32: int
    def __init__(self, encoding: _Optional[_Union[PayloadEncoding, str]] = ..., data: _Optional[bytes] = ..., shape: _Optional[_Iterable[int]] = ..., crop: _Optional[_Union[ImageCrop, _Mapping]] = ..., crc32: _Optional[int] = ...) -> None: ...

class ImageCrop(_message.Message):
    __slots__ = ("height", "width", "corner")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CORNER_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    corner: Corner
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., corner: _Optional[_Union[Corner, _Mapping]] = ...) -> None: ...

class Corner(_message.Message):
    __slots__ = ("top", "left")
    TOP_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    top: int
    left: int
    def __init__(self, top: _Optional[int] = ..., left: _Optional[int] = ...) -> None: ...

class AnomalyMap(_message.Message):
    __slots__ = ("height", "width", "values")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    values: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

class Screening(_message.Message):
    __slots__ = ("score", "p_value", "extrapolated", "route", "bundle_id", "calibration_id", "artefact", "anomaly_map")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    EXTRAPOLATED_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ID_FIELD_NUMBER: _ClassVar[int]
    ARTEFACT_FIELD_NUMBER: _ClassVar[int]
    ANOMALY_MAP_FIELD_NUMBER: _ClassVar[int]
    score: float
    p_value: float
    extrapolated: bool
    route: Route
    bundle_id: str
    calibration_id: str
    artefact: str
    anomaly_map: AnomalyMap
    def __init__(self, score: _Optional[float] = ..., p_value: _Optional[float] = ..., extrapolated: _Optional[bool] = ..., route: _Optional[_Union[Route, str]] = ..., bundle_id: _Optional[str] = ..., calibration_id: _Optional[str] = ..., artefact: _Optional[str] = ..., anomaly_map: _Optional[_Union[AnomalyMap, _Mapping]] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("sample_id", "modality", "captured_at", "source_id", "origin", "payload", "screening", "traceparent")
    SAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SCREENING_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    sample_id: bytes
    modality: Modality
    captured_at: _timestamp_pb2.Timestamp
    source_id: str
    origin: str
    payload: Payload
    screening: Screening
    traceparent: str
    def __init__(self, sample_id: _Optional[bytes] = ..., modality: _Optional[_Union[Modality, str]] = ..., captured_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source_id: _Optional[str] = ..., origin: _Optional[str] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ..., screening: _Optional[_Union[Screening, _Mapping]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class AnalyzerOpinion(_message.Message):
    __slots__ = ("analyzer", "score", "p_value", "extrapolated")
    ANALYZER_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    EXTRAPOLATED_FIELD_NUMBER: _ClassVar[int]
    analyzer: str
    score: float
    p_value: float
    extrapolated: bool
    def __init__(self, analyzer: _Optional[str] = ..., score: _Optional[float] = ..., p_value: _Optional[float] = ..., extrapolated: _Optional[bool] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("name", "share")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    share: float
    def __init__(self, name: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("sample_id", "decision", "p_value", "extrapolated", "opinions", "anomaly_map", "contributions", "bundle_id", "judged_at", "reason")
    SAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    EXTRAPOLATED_FIELD_NUMBER: _ClassVar[int]
    OPINIONS_FIELD_NUMBER: _ClassVar[int]
    ANOMALY_MAP_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    JUDGED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sample_id: bytes
    decision: Decision
    p_value: float
    extrapolated: bool
    opinions: _containers.RepeatedCompositeFieldContainer[AnalyzerOpinion]
    anomaly_map: AnomalyMap
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    bundle_id: str
    judged_at: _timestamp_pb2.Timestamp
    reason: str
    def __init__(self, sample_id: _Optional[bytes] = ..., decision: _Optional[_Union[Decision, str]] = ..., p_value: _Optional[float] = ..., extrapolated: _Optional[bool] = ..., opinions: _Optional[_Iterable[_Union[AnalyzerOpinion, _Mapping]]] = ..., anomaly_map: _Optional[_Union[AnomalyMap, _Mapping]] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., bundle_id: _Optional[str] = ..., judged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

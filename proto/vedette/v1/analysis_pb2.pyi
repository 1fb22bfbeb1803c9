from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnalysisCommand(_message.Message):
    __slots__ = ("start", "wake", "metrics")
    START_FIELD_NUMBER: _ClassVar[int]
    WAKE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    start: str
    wake: bool
    metrics: bool
    def __init__(self, start: _Optional[str] = ..., wake: _Optional[bool] = ..., metrics: _Optional[bool] = ...) -> None: ...

class AnalysisReport(_message.Message):
    __slots__ = ("alive", "judged", "doubles", "problem", "failure", "metrics", "busy_s")
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    alive: bool
    judged: JudgedSamples
    doubles: DoubleSamples
    problem: str
    failure: AnalysisFailure
    metrics: bytes
    busy_s: float
    def __init__(self, alive: _Optional[bool] = ..., judged: _Optional[_Union[JudgedSamples, _Mapping]] = ..., doubles: _Optional[_Union[DoubleSamples, _Mapping]] = ..., problem: _Optional[str] = ..., failure: _Optional[_Union[AnalysisFailure, _Mapping]] = ..., metrics: _Optional[bytes] = ..., busy_s: _Optional[float] = ...) -> None: ...

class JudgedSamples(_message.Message):
    __slots__ = ("loads", "events", "seconds")
    LOADS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    loads: _containers.RepeatedCompositeFieldContainer[DeviceLoad]
    events: _containers.RepeatedCompositeFieldContainer[PushedEvent]
    seconds: float
    def __init__(self, loads: _Optional[_Iterable[_Union[DeviceLoad, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[PushedEvent, _Mapping]]] = ..., seconds: _Optional[float] = ...) -> None: ...

class DeviceLoad(_message.Message):
    __slots__ = ("device_id", "samples", "decoded_bytes", "foreign")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DECODED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    samples: int
    decoded_bytes: int
    foreign: int
    def __init__(self, device_id: _Optional[str] = ..., samples: _Optional[int] = ..., decoded_bytes: _Optional[int] = ..., foreign: _Optional[int] = ...) -> None: ...

class DoubleSamples(_message.Message):
    __slots__ = ("loads",)
    LOADS_FIELD_NUMBER: _ClassVar[int]
    loads: _containers.RepeatedCompositeFieldContainer[DeviceLoad]
    def __init__(self, loads: _Optional[_Iterable[_Union[DeviceLoad, _Mapping]]] = ...) -> None: ...

class PushedEvent(_message.Message):
    __slots__ = ("device_id", "cursor", "event")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    cursor: int
    event: bytes
    def __init__(self, device_id: _Optional[str] = ..., cursor: _Optional[int] = ..., event: _Optional[bytes] = ...) -> None: ...

class AnalysisFailure(_message.Message):
    __slots__ = ("text", "is_storage")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_STORAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    is_storage: bool
    def __init__(self, text: _Optional[str] = ..., is_storage: _Optional[bool] = ...) -> None: ...

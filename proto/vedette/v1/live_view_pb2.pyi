from vedette.v1 import fleet_pb2 as _fleet_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LiveViewProgress(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIVE_VIEW_PROGRESS_UNSPECIFIED: _ClassVar[LiveViewProgress]
    LIVE_VIEW_PROGRESS_SENT: _ClassVar[LiveViewProgress]
    LIVE_VIEW_PROGRESS_OLD_AGENT: _ClassVar[LiveViewProgress]
LIVE_VIEW_PROGRESS_UNSPECIFIED: LiveViewProgress
LIVE_VIEW_PROGRESS_SENT: LiveViewProgress
LIVE_VIEW_PROGRESS_OLD_AGENT: LiveViewProgress

class LiveViewMessage(_message.Message):
    __slots__ = ("request_id", "ask", "progress", "answer", "refused_answer")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_ANSWER_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    ask: LiveViewAsk
    progress: LiveViewProgress
    answer: _fleet_pb2.AnswerLiveViewRequest
    refused_answer: str
    def __init__(self, request_id: _Optional[bytes] = ..., ask: _Optional[_Union[LiveViewAsk, _Mapping]] = ..., progress: _Optional[_Union[LiveViewProgress, str]] = ..., answer: _Optional[_Union[_fleet_pb2.AnswerLiveViewRequest, _Mapping]] = ..., refused_answer: _Optional[str] = ...) -> None: ...

class LiveViewAsk(_message.Message):
    __slots__ = ("device_id", "source_id", "asked_by")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    ASKED_BY_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    source_id: str
    asked_by: str
    def __init__(self, device_id: _Optional[str] = ..., source_id: _Optional[str] = ..., asked_by: _Optional[str] = ...) -> None: ...

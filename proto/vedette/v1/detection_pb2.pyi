from vedette.v1 import sample_pb2 as _sample_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBMIT_STATUS_UNSPECIFIED: _ClassVar[SubmitStatus]
    SUBMIT_STATUS_ACCEPTED: _ClassVar[SubmitStatus]
    SUBMIT_STATUS_DUPLICATE: _ClassVar[SubmitStatus]
    SUBMIT_STATUS_REJECTED: _ClassVar[SubmitStatus]
SUBMIT_STATUS_UNSPECIFIED: SubmitStatus
SUBMIT_STATUS_ACCEPTED: SubmitStatus
SUBMIT_STATUS_DUPLICATE: SubmitStatus
SUBMIT_STATUS_REJECTED: SubmitStatus

class SubmitRequest(_message.Message):
    __slots__ = ("samples",)
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[_sample_pb2.Sample]
    def __init__(self, samples: _Optional[_Iterable[_Union[_sample_pb2.Sample, _Mapping]]] = ...) -> None: ...

class SampleResult(_message.Message):
    __slots__ = ("sample_id", "status", "reason")
    SAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sample_id: bytes
    status: SubmitStatus
    reason: str
    def __init__(self, sample_id: _Optional[bytes] = ..., status: _Optional[_Union[SubmitStatus, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SampleResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SampleResult, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("cursor", "answers_live_views")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_LIVE_VIEWS_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    answers_live_views: bool
    def __init__(self, cursor: _Optional[int] = ..., answers_live_views: _Optional[bool] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("cursor", "verdict", "bundle_changed", "live_view_requested")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    LIVE_VIEW_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    verdict: _sample_pb2.Verdict
    bundle_changed: BundleChanged
    live_view_requested: LiveViewRequested
    def __init__(self, cursor: _Optional[int] = ..., verdict: _Optional[_Union[_sample_pb2.Verdict, _Mapping]] = ..., bundle_changed: _Optional[_Union[BundleChanged, _Mapping]] = ..., live_view_requested: _Optional[_Union[LiveViewRequested, _Mapping]] = ...) -> None: ...

class BundleChanged(_message.Message):
    __slots__ = ("bundle_name", "bundle_id")
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    bundle_name: str
    bundle_id: str
    def __init__(self, bundle_name: _Optional[str] = ..., bundle_id: _Optional[str] = ...) -> None: ...

class LiveViewRequested(_message.Message):
    __slots__ = ("request_id", "source_id", "asked_by")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    ASKED_BY_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    source_id: str
    asked_by: str
    def __init__(self, request_id: _Optional[bytes] = ..., source_id: _Optional[str] = ..., asked_by: _Optional[str] = ...) -> None: ...

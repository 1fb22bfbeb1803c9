import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vedette.v1 import sample_pb2 as _sample_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LiveViewRefusal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIVE_VIEW_REFUSAL_UNSPECIFIED: _ClassVar[LiveViewRefusal]
    LIVE_VIEW_REFUSAL_NOT_PERMITTED: _ClassVar[LiveViewRefusal]
    LIVE_VIEW_REFUSAL_NO_SAMPLE: _ClassVar[LiveViewRefusal]
    LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE: _ClassVar[LiveViewRefusal]
    LIVE_VIEW_REFUSAL_TOO_OFTEN: _ClassVar[LiveViewRefusal]
    LIVE_VIEW_REFUSAL_NOT_SHOWABLE: _ClassVar[LiveViewRefusal]
LIVE_VIEW_REFUSAL_UNSPECIFIED: LiveViewRefusal
LIVE_VIEW_REFUSAL_NOT_PERMITTED: LiveViewRefusal
LIVE_VIEW_REFUSAL_NO_SAMPLE: LiveViewRefusal
LIVE_VIEW_REFUSAL_UNKNOWN_SOURCE: LiveViewRefusal
LIVE_VIEW_REFUSAL_TOO_OFTEN: LiveViewRefusal
LIVE_VIEW_REFUSAL_NOT_SHOWABLE: LiveViewRefusal

class EnrollRequest(_message.Message):
    __slots__ = ("token", "certificate_signing_request")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SIGNING_REQUEST_FIELD_NUMBER: _ClassVar[int]
    token: str
    certificate_signing_request: bytes
    def __init__(self, token: _Optional[str] = ..., certificate_signing_request: _Optional[bytes] = ...) -> None: ...

class EnrollResponse(_message.Message):
    __slots__ = ("device_id", "certificate_pem", "ca_certificate_pem", "bundle_key_pem", "key_set")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    certificate_pem: bytes
    ca_certificate_pem: bytes
    bundle_key_pem: bytes
    key_set: KeySet
    def __init__(self, device_id: _Optional[str] = ..., certificate_pem: _Optional[bytes] = ..., ca_certificate_pem: _Optional[bytes] = ..., bundle_key_pem: _Optional[bytes] = ..., key_set: _Optional[_Union[KeySet, _Mapping]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate_signing_request",)
    CERTIFICATE_SIGNING_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_signing_request: bytes
    def __init__(self, certificate_signing_request: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("certificate_pem",)
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ...) -> None: ...

class KeySet(_message.Message):
    __slots__ = ("data", "signature")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    signature: bytes
    def __init__(self, data: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("samples_screened", "samples_forwarded", "samples_audited", "samples_alarmed", "samples_rejected", "samples_dropped", "bytes_screened", "bytes_uploaded")
    SAMPLES_SCREENED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FORWARDED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_AUDITED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_ALARMED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_REJECTED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    BYTES_SCREENED_FIELD_NUMBER: _ClassVar[int]
    BYTES_UPLOADED_FIELD_NUMBER: _ClassVar[int]
    samples_screened: int
    samples_forwarded: int
    samples_audited: int
    samples_alarmed: int
    samples_rejected: int
    samples_dropped: int
    bytes_screened: int
    bytes_uploaded: int
    def __init__(self, samples_screened: _Optional[int] = ..., samples_forwarded: _Optional[int] = ..., samples_audited: _Optional[int] = ..., samples_alarmed: _Optional[int] = ..., samples_rejected: _Optional[int] = ..., samples_dropped: _Optional[int] = ..., bytes_screened: _Optional[int] = ..., bytes_uploaded: _Optional[int] = ...) -> None: ...

class RunningBundle(_message.Message):
    __slots__ = ("source_id", "bundle_name", "bundle_id", "artefact", "state", "missed")
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    ARTEFACT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    source_id: str
    bundle_name: str
    bundle_id: str
    artefact: str
    state: str
    missed: MissReport
    def __init__(self, source_id: _Optional[str] = ..., bundle_name: _Optional[str] = ..., bundle_id: _Optional[str] = ..., artefact: _Optional[str] = ..., state: _Optional[str] = ..., missed: _Optional[_Union[MissReport, _Mapping]] = ...) -> None: ...

class MissReport(_message.Message):
    __slots__ = ("audits", "anomalous", "unknown", "audit_share", "forward_p_value", "limit_words")
    AUDITS_FIELD_NUMBER: _ClassVar[int]
    ANOMALOUS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    AUDIT_SHARE_FIELD_NUMBER: _ClassVar[int]
    FORWARD_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_WORDS_FIELD_NUMBER: _ClassVar[int]
    audits: int
    anomalous: int
    unknown: int
    audit_share: float
    forward_p_value: float
    limit_words: str
    def __init__(self, audits: _Optional[int] = ..., anomalous: _Optional[int] = ..., unknown: _Optional[int] = ..., audit_share: _Optional[float] = ..., forward_p_value: _Optional[float] = ..., limit_words: _Optional[str] = ...) -> None: ...

class GroupSettings(_message.Message):
    __slots__ = ("false_alarms_per_day", "audit_share", "max_samples_per_s", "max_bytes_per_s", "max_miss_rate")
    FALSE_ALARMS_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    AUDIT_SHARE_FIELD_NUMBER: _ClassVar[int]
    MAX_SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    MAX_MISS_RATE_FIELD_NUMBER: _ClassVar[int]
    false_alarms_per_day: float
    audit_share: float
    max_samples_per_s: float
    max_bytes_per_s: float
    max_miss_rate: float
    def __init__(self, false_alarms_per_day: _Optional[float] = ..., audit_share: _Optional[float] = ..., max_samples_per_s: _Optional[float] = ..., max_bytes_per_s: _Optional[float] = ..., max_miss_rate: _Optional[float] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("agent_version", "counters", "running", "spool_samples", "spool_bytes", "warnings", "sent_at_ms", "query_only", "key_set_sha256", "settings", "settings_refusal", "disk_free_bytes", "near_copies")
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SPOOL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_MS_FIELD_NUMBER: _ClassVar[int]
    QUERY_ONLY_FIELD_NUMBER: _ClassVar[int]
    KEY_SET_SHA256_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEAR_COPIES_FIELD_NUMBER: _ClassVar[int]
    agent_version: str
    counters: Counters
    running: _containers.RepeatedCompositeFieldContainer[RunningBundle]
    spool_samples: int
    spool_bytes: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    sent_at_ms: int
    query_only: bool
    key_set_sha256: bytes
    settings: GroupSettings
    settings_refusal: str
    disk_free_bytes: int
    near_copies: _containers.RepeatedCompositeFieldContainer[NearCopies]
    def __init__(self, agent_version: _Optional[str] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., running: _Optional[_Iterable[_Union[RunningBundle, _Mapping]]] = ..., spool_samples: _Optional[int] = ..., spool_bytes: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., sent_at_ms: _Optional[int] = ..., query_only: _Optional[bool] = ..., key_set_sha256: _Optional[bytes] = ..., settings: _Optional[_Union[GroupSettings, _Mapping]] = ..., settings_refusal: _Optional[str] = ..., disk_free_bytes: _Optional[int] = ..., near_copies: _Optional[_Iterable[_Union[NearCopies, _Mapping]]] = ...) -> None: ...

class NearCopies(_message.Message):
    __slots__ = ("sample_id", "copies", "last_at")
    SAMPLE_ID_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    sample_id: bytes
    copies: int
    last_at: _timestamp_pb2.Timestamp
    def __init__(self, sample_id: _Optional[bytes] = ..., copies: _Optional[int] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DesiredBundle(_message.Message):
    __slots__ = ("bundle_name", "bundle_id", "archive_bytes", "archive_sha256")
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_SHA256_FIELD_NUMBER: _ClassVar[int]
    bundle_name: str
    bundle_id: str
    archive_bytes: int
    archive_sha256: bytes
    def __init__(self, bundle_name: _Optional[str] = ..., bundle_id: _Optional[str] = ..., archive_bytes: _Optional[int] = ..., archive_sha256: _Optional[bytes] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("desired", "next_heartbeat_s", "service_time_ms", "key_sets", "settings")
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    NEXT_HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_SETS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    desired: _containers.RepeatedCompositeFieldContainer[DesiredBundle]
    next_heartbeat_s: int
    service_time_ms: int
    key_sets: _containers.RepeatedCompositeFieldContainer[KeySet]
    settings: GroupSettings
    def __init__(self, desired: _Optional[_Iterable[_Union[DesiredBundle, _Mapping]]] = ..., next_heartbeat_s: _Optional[int] = ..., service_time_ms: _Optional[int] = ..., key_sets: _Optional[_Iterable[_Union[KeySet, _Mapping]]] = ..., settings: _Optional[_Union[GroupSettings, _Mapping]] = ...) -> None: ...

class FetchBundleRequest(_message.Message):
    __slots__ = ("bundle_id", "offset")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    offset: int
    def __init__(self, bundle_id: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class AnswerLiveViewRequest(_message.Message):
    __slots__ = ("request_id", "sample", "refusal")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    sample: LiveSample
    refusal: LiveViewRefusal
    def __init__(self, request_id: _Optional[bytes] = ..., sample: _Optional[_Union[LiveSample, _Mapping]] = ..., refusal: _Optional[_Union[LiveViewRefusal, str]] = ...) -> None: ...

class AnswerLiveViewResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LiveSample(_message.Message):
    __slots__ = ("modality", "captured_at", "origin", "payload", "every", "screening")
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_AT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    SCREENING_FIELD_NUMBER: _ClassVar[int]
    modality: _sample_pb2.Modality
    captured_at: _timestamp_pb2.Timestamp
    origin: str
    payload: _sample_pb2.Payload
    every: int
    screening: _sample_pb2.Screening
    def __init__(self, modality: _Optional[_Union[_sample_pb2.Modality, str]] = ..., captured_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., origin: _Optional[str] = ..., payload: _Optional[_Union[_sample_pb2.Payload, _Mapping]] = ..., every: _Optional[int] = ..., screening: _Optional[_Union[_sample_pb2.Screening, _Mapping]] = ...) -> None: ...

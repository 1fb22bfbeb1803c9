"""Kinds of notices."""

from enum import StrEnum


class NoticeKind(StrEnum):
    """Kind of a notice."""

    DEVICE_SILENT = "device_silent"
    CERTIFICATE_EXPIRING = "certificate_expiring"
    DEVICE_DISK_FULL = "device_disk_full"
    SERVICE_DISK_FULL = "service_disk_full"
    PAYLOADS_UNREADABLE = "payloads_unreadable"
    ROLLOUT_HALTED = "rollout_halted"


DEVICE_KINDS = (NoticeKind.DEVICE_SILENT, NoticeKind.CERTIFICATE_EXPIRING, NoticeKind.DEVICE_DISK_FULL)  # by device id

"""Notifications to systemd: ready, alive, stopping (sd_notify(3), without its library)."""

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send a state such as "READY=1" to the service manager, if there is one; errors are ignored."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(1.0)
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)

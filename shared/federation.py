"""Protocol of a federated round, and helpers to start Flower's commands.

A round sends the head's arrays and a few settings to each device; each answers with its trained arrays and scalar
metrics, or with an error. The names below are the records and keys of those two messages.
"""

import errno
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.addresses import Address
from shared.errors import MissingExtraError, PortInUseError, SettingsError

DEFAULT_ADDRESS = "127.0.0.1:7490"

# Records of the messages, and the keys in them.
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
KEY_BUNDLE_NAME = "bundle-name"
KEY_PREPROCESSING_ID = "preprocessing-id"
KEY_DISTILLATION = "distillation"  # DistillationSettings as JSON
KEY_MASKED, KEY_MODES = "masked-inputs", "mode-inputs"  # the InputLayout; 0 where absent
KEY_MIN_SAMPLES = "min-samples"
KEY_ROUND = "server-round"
METRIC_SAMPLES = "num-examples"  # weight of a device's update
METRIC_LOSS = "loss"
METRIC_TRAIN_SECONDS = "train-seconds"

# Keys of a node's own configuration, which never leaves the device.
NODE_BUFFER = "normal-buffer"
NODE_BUFFER_KEY = "normal-buffer-key"
NODE_THREADS = "threads"


def parse_address(text: str) -> Address:
    """Return the address in `text`; raises SettingsError unless it is "host:port" or "[IPv6]:port"."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise SettingsError(f"{text!r} is not an address, such as {DEFAULT_ADDRESS}: {error}.") from None


def require_secure(address: Address, certificate: Path | None) -> None:
    """Raise SettingsError if `address` can be reached from another machine without TLS."""
    if certificate is None and not address.is_loopback:
        raise SettingsError(
            f"{address} is not a loopback address, and rounds go unencrypted on loopback only: give the certificates "
            "(see --help)."
        )


def take_port(address: Address) -> Address:
    """Return `address` after a check that it is free, with a free port in place of port 0.

    Raises PortInUseError if another process listens there, SettingsError if the host is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
            return Address(address.host, int(probe.getsockname()[1]))
    except socket.gaierror as error:
        raise SettingsError(f"{address}: this host is unknown ({error.strerror}).") from None
    except OSError as error:
        if address.port and error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortInUseError(
                f"{address} cannot be listened on ({error.strerror}): stop what uses it, or choose another port."
            ) from None
        raise SettingsError(f"{address} cannot be listened on ({error.strerror}).") from None


def flower_command(name: str) -> str:
    """Return the path of one of Flower's commands; raises MissingExtraError if it is not installed."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MissingExtraError(f"{name} is not installed: pip install 'vedette[federated]'.")
    return found


def flower_environment(home: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of Flower's processes: state below `home`, no telemetry, no update check.

    Flower starts helpers by name, so the folder of this interpreter's commands comes first in PATH.
    """
    given = os.environ if environment is None else environment
    commands = str(Path(sys.executable).parent)
    return {
        **given,
        "PATH": os.pathsep.join([commands, given.get("PATH", os.defpath)]),
        "FLWR_HOME": str(home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",  # seconds; the default of 1 delays every message
        "PYTHONUNBUFFERED": "1",  # no buffered output is lost when a process dies
        "NO_COLOR": "1",
        "COLUMNS": "1000",  # keeps an error message on one line
    }

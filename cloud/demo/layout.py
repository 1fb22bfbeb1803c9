"""Files of one demo: their paths, and the configuration files of its processes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.demo.streams import DevicePlan
from cloud.modalities import cloud_modality
from shared.bundle import Bundle
from shared.errors import DataError
from shared.home import trusted_key
from shared.status import AgentStatus, read_status_file


@dataclass(frozen=True)
class DemoFolder:
    """Folder of one demo."""

    folder: Path

    @property
    def data(self) -> Path:
        """Folder of training data and of the devices' samples."""
        return self.folder / "data"

    @property
    def logs(self) -> Path:
        """Folder of logs, one file per process."""
        return self.folder / "logs"

    @property
    def cloud_config(self) -> Path:
        """Path of `cloud.toml`."""
        return self.folder / "cloud.toml"

    @property
    def cloud_data(self) -> Path:
        """Data directory of the service."""
        return self.folder / "cloud"

    @property
    def federated_server(self) -> Path:
        """File with the address of Flower's SuperLink."""
        return self.cloud_data / "federation" / "server.json"

    @property
    def round_result(self) -> Path:
        """Result of `vedette federated run`."""
        return self.folder / "round.json"

    @property
    def device_ids(self) -> Path:
        """File with the id of each device, one per line."""
        return self.folder / "devices.txt"

    @property
    def tokens(self) -> Path:
        """Folder of the devices' enrolment tokens."""
        return self.folder / "edge"

    def training_config(self, plan: DevicePlan) -> Path:
        """Return the path of the training settings of a device's bundle."""
        return self.folder / f"train-{plan.bundle_name}.toml"

    def bundle(self, plan: DevicePlan) -> Path:
        """Return the path of a device's bundle."""
        return self.folder / f"{plan.bundle_name}.vedette"

    def state(self, plan: DevicePlan) -> Path:
        """Return the state directory of a device's agent."""
        return self.folder / "edge" / plan.device_id

    def edge_config(self, plan: DevicePlan) -> Path:
        """Return the path of a device's `edge.toml`."""
        return self.folder / "edge" / f"{plan.device_id}.toml"

    def token(self, plan: DevicePlan) -> Path:
        """Return the path of a device's enrolment token, which is deleted after enrolment."""
        return self.tokens / f"{plan.device_id}.token"

    def screening_log(self, plan: DevicePlan) -> Path:
        """Return the path of the screening log of a device's agent."""
        return self.state(plan) / "screening.csv"

    def open_bundle(self, plan: DevicePlan) -> Bundle:
        """Return a device's bundle, verified."""
        return Bundle.open(self.bundle(plan), [trusted_key()])

    def status(self, plan: DevicePlan) -> AgentStatus | None:
        """Return the newest status of a device's agent; None before its first."""
        try:
            return read_status_file(self.state(plan))
        except DataError:
            return None

    def write_training_config(self, plan: DevicePlan, effort: float) -> None:
        """Write the training settings of a device's bundle, with the share `effort` of the usual steps."""
        self.training_config(plan).write_text(to_toml({"name": plan.bundle_name, "effort": effort, **plan.training}))

    def write_cloud_config(self) -> None:
        """Write `cloud.toml` with free local ports and frequent heartbeats."""
        free = "127.0.0.1:0"
        self.cloud_config.write_text(
            to_toml(
                {
                    "data_dir": str(self.cloud_data),
                    "listen": free,
                    "enrolment_listen": free,
                    "console_listen": free,
                    "heartbeat_s": 2,
                }
            )
        )

    def write_edge_config(self, plan: DevicePlan, seconds: float, address: str | None) -> None:
        """Write `edge.toml` of a device that screens for `seconds` and reaches the service at `address`."""
        # An agent counts windows, not readings.
        rate_per_s = plan.rate_per_s / max(self.open_bundle(plan).manifest.input.window_stride, 1)
        kind = cloud_modality(plan.modality).source_kind
        source = {
            "id": plan.device_id,
            "kind": kind,
            ("url" if kind == "camera" else "path"): str(plan.stream.path),
            "bundle_name": plan.bundle_name,
            "rate_per_s": rate_per_s,
            "stop_after_s": seconds,
        }
        settings = {
            "state_dir": str(self.state(plan)),
            "sources": [source],
            "screening_log": {"path": str(self.screening_log(plan))},
            **({"uplink": {"address": address}} if address else {}),
        }
        self.edge_config(plan).parent.mkdir(parents=True, exist_ok=True)
        self.edge_config(plan).write_text(to_toml(settings))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file that another process writes; None while there is none."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return settings as TOML: scalars first, then tables and arrays of tables."""
    nested = {key: value for key, value in values.items() if isinstance(value, dict | list)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in nested]
    for key, value in nested.items():
        heading = f"[[{prefix}{key}]]" if isinstance(value, list) else f"[{prefix}{key}]"
        for table in value if isinstance(value, list) else [value]:
            lines += ["", heading, to_toml(table, f"{prefix}{key}.")]
    return "\n".join(lines) + "\n"

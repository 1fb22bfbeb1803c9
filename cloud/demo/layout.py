"""Where everything of one demo lies, and the configuration files its processes read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.demo.streams import DevicePlan
from cloud.modalities import cloud_modality
from shared.bundle import Bundle
from shared.home import trusted_key


@dataclass(frozen=True)
class Layout:
    """The folder of one demo."""

    folder: Path

    @property
    def data(self) -> Path:
        """What the screeners are trained on and what the devices see."""
        return self.folder / "data"

    @property
    def logs(self) -> Path:
        """A file for each process."""
        return self.folder / "logs"

    @property
    def cloud_config(self) -> Path:
        """`cloud.toml`."""
        return self.folder / "cloud.toml"

    @property
    def cloud_data(self) -> Path:
        """The service's data directory."""
        return self.folder / "cloud"

    @property
    def federated_server(self) -> Path:
        """Where Flower's SuperLink says how to reach it."""
        return self.cloud_data / "federation" / "server.json"

    @property
    def round_result(self) -> Path:
        """What `vedette federated run` wrote."""
        return self.folder / "round.json"

    def training_config(self, plan: DevicePlan) -> Path:
        """Settings of the training of a device's bundle."""
        return self.folder / f"train-{plan.bundle_name}.toml"

    def bundle(self, plan: DevicePlan) -> Path:
        """The archive that training made for a device."""
        return self.folder / f"{plan.bundle_name}.vedette"

    def state(self, plan: DevicePlan) -> Path:
        """The state directory of a device's agent."""
        return self.folder / "edge" / plan.device_id

    def edge_config(self, plan: DevicePlan) -> Path:
        """`edge.toml` of a device."""
        return self.folder / "edge" / f"{plan.device_id}.toml"

    def token(self, plan: DevicePlan) -> Path:
        """The enrolment token of a device, until it is spent."""
        return self.folder / "edge" / f"{plan.device_id}.token"

    def screening_log(self, plan: DevicePlan) -> Path:
        """Where a device's agent notes every sample it screened."""
        return self.state(plan) / "screening.csv"

    def open_bundle(self, plan: DevicePlan) -> Bundle:
        """The bundle that training made for a device, verified."""
        return Bundle.open(self.bundle(plan), [trusted_key()])

    def status(self, plan: DevicePlan) -> dict[str, Any] | None:
        """What a device's agent last said of itself; None before it did."""
        return read_json(self.state(plan) / "status.json")

    def write_training_config(self, plan: DevicePlan, effort: float) -> None:
        """Write the settings of the training of a device's bundle, with that share of the usual steps."""
        self.training_config(plan).write_text(to_toml({"name": plan.bundle_name, "effort": effort, **plan.training}))

    def write_cloud_config(self) -> None:
        """Write `cloud.toml`: free ports on this machine, and heartbeats as fast as a demo wants them."""
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
        source = {
            "id": plan.device_id,
            "kind": cloud_modality(plan.modality).source_kind,
            "path": str(plan.stream.path),
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
    """The object in a file that another process replaces now and then; None while there is none."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Settings as TOML: scalars first, then tables and arrays of tables."""
    nested = {key: value for key, value in values.items() if isinstance(value, dict | list)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in nested]
    for key, value in nested.items():
        heading = f"[[{prefix}{key}]]" if isinstance(value, list) else f"[{prefix}{key}]"
        for table in value if isinstance(value, list) else [value]:
            lines += ["", heading, to_toml(table, f"{prefix}{key}.")]
    return "\n".join(lines) + "\n"

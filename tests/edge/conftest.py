"""Fixtures of the agent's tests: authority, signing key, bundles, cloud, and devices that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.bundle import Bundle
from shared.signing_keys import public_pem
from tests.edge.bundles import image_bundle, normal_rows, series_bundle, tabular_bundle
from tests.edge.certificates import Authority, write_identity
from tests.edge.cloud_double import CloudDouble, running_cloud
from tests.edge.device import Device, write_csv

Enrol: TypeAlias = Callable[..., Device]


@pytest.fixture(scope="session")
def signing_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def tabular(signing_key: Ed25519PrivateKey) -> Bundle:
    return tabular_bundle(signing_key)


@pytest.fixture(scope="session")
def series(signing_key: Ed25519PrivateKey) -> Bundle:
    return series_bundle(signing_key)


@pytest.fixture(scope="session")
def images(signing_key: Ed25519PrivateKey) -> Bundle:
    return image_bundle(signing_key)


@pytest.fixture
def cloud(authority: Authority, signing_key: Ed25519PrivateKey) -> Iterator[CloudDouble]:
    with running_cloud(authority, bundle_key=signing_key.public_key()) as cloud:
        yield cloud


@pytest.fixture
def device(tmp_path: Path, tabular: Bundle, signing_key: Ed25519PrivateKey) -> Iterator[Device]:
    """A device without a cloud that screens 600 rows, the last 30 of them odd."""
    rows = normal_rows(600, seed=5)
    rows[-30:] += [15.0, 8.0, 120.0]
    tabular.save(tmp_path / "plant.bundle")
    (tmp_path / "key.pem").write_bytes(public_pem(signing_key.public_key()))
    source = {
        "id": "plant",
        "kind": "replay",
        "path": write_csv(tmp_path / "readings.csv", rows),
        "bundle": tmp_path / "plant.bundle",
        "artefact": "int8_onnxruntime",  # else each new device would measure for seconds which one is faster
        "batch_size": 64,
    }
    settings: dict[str, Any] = {
        "bundle_key": tmp_path / "key.pem",
        "sources": [source],
        "router": {"mode": "edge_only"},
        "screening_log": {"path": tmp_path / "screening.csv"},
        "drain_timeout_s": 15,
    }
    device = Device(tmp_path / "device", settings)
    yield device
    device.close()


@pytest.fixture
def enrol(device: Device, authority: Authority, signing_key: Ed25519PrivateKey) -> Enrol:
    """Make the device one of a cloud at `address`; `changes` go to `write_identity`."""

    def enrol_at(address: str, **changes: Any) -> Device:
        issuer = changes.pop("issuer", authority)
        write_identity(device.state, issuer, address, signing_key.public_key(), **changes)
        device.settings["router"] = {"mode": "cascade"}
        device.settings["uplink"] = {"backoff_initial_s": 0.05, "backoff_max_s": 0.4, "heartbeat_s": 0.5}
        return device

    return enrol_at

"""A token becomes an identity: the key made here, the service trusted through the token alone."""

import datetime
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.uplink.enrolment import enroll
from edge.uplink.identity import load_identity
from edge.uplink.trust import BundleKeys
from shared.enrolment import EnrolmentToken
from shared.errors import CertificateError, ConnectionFailedError, EnrolmentError
from shared.key_sets import KeySet, TrustedKey, authority_sha256
from tests.edge.certificates import DAY, Authority, write_identity
from tests.edge.cloud_double import SECRET, CloudDouble
from vedette.v1 import fleet_pb2


def token_for(cloud: CloudDouble, authority: Authority, **changes: str) -> str:
    facts = {
        "device_id": "pump-7",
        "secret": SECRET,
        "address": cloud.address,
        "enrolment_address": cloud.enrolment_address,
        "ca_certificate_pem": authority.pem.decode(),
    }
    return EnrolmentToken(**{**facts, **changes}).to_text()


def test_a_token_becomes_an_identity(cloud: CloudDouble, authority: Authority, tmp_path: Path) -> None:
    identity = enroll(tmp_path, token_for(cloud, authority))
    assert (identity.device_id, identity.address) == ("pump-7", cloud.address)
    key = tmp_path / "identity" / "device.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"EC" in key.read_bytes() or b"PRIVATE KEY" in key.read_bytes()
    assert BundleKeys(tmp_path).keys == (cloud.bundle_key,)


def test_a_token_is_spent_once_and_an_identity_is_not_replaced_by_accident(
    cloud: CloudDouble, authority: Authority, tmp_path: Path
) -> None:
    token = token_for(cloud, authority)
    enroll(tmp_path / "a", token)
    with pytest.raises(EnrolmentError, match=r"refused the token: The token is spent or wrong\.$"):
        enroll(tmp_path / "b", token)
    assert not (tmp_path / "b" / "identity" / "device.key").exists()
    with pytest.raises(EnrolmentError, match="enrolled already"):
        enroll(tmp_path / "a", token)
    cloud.spent.clear()
    enroll(tmp_path / "a", token, replace=True)


def test_a_service_the_token_does_not_name_gets_nothing(cloud: CloudDouble, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="not the one the token names"):
        enroll(tmp_path, token_for(cloud, Authority("Elsewhere")), timeout_s=5)
    assert not cloud.spent


def test_an_absent_service_leaves_the_token_unspent(cloud: CloudDouble, authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailedError, match=r"nobody listens at 127\.0\.0\.1:1\..* the token was not used"):
        enroll(tmp_path, token_for(cloud, authority, enrolment_address="127.0.0.1:1"), timeout_s=2)


def test_a_damaged_token_is_one_clear_line(tmp_path: Path) -> None:
    for text in ("", "hello", "vedette1.xyz", "vedette1." + "e30"):
        with pytest.raises(EnrolmentError):
            enroll(tmp_path, text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": -2 * DAY, "end": -DAY}, "expired on"),
        ({"start": DAY}, "not valid before"),
        ({"pinned": Authority("Elsewhere")}, "foreign"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(
    tmp_path: Path, authority: Authority, signing_key: Ed25519PrivateKey, changes: dict, words: str
) -> None:
    write_identity(tmp_path, authority, "localhost:1", signing_key.public_key(), **changes)
    with pytest.raises(CertificateError, match=words):
        load_identity(tmp_path)


@pytest.mark.parametrize("name", ["device.key", "device.crt", "ca.crt", "identity.json"])
def test_a_missing_or_damaged_part_is_named(
    tmp_path: Path, authority: Authority, signing_key: Ed25519PrivateKey, name: str
) -> None:
    write_identity(tmp_path, authority, "localhost:1", signing_key.public_key())
    load_identity(tmp_path, datetime.datetime.now(datetime.UTC))
    path = tmp_path / "identity" / name
    path.write_bytes(b"damaged")
    with pytest.raises(CertificateError, match=name):
        load_identity(tmp_path)
    path.unlink()
    with pytest.raises(CertificateError, match=f"{name}: no such file"):
        load_identity(tmp_path)


def test_a_key_of_another_certificate_is_named(
    tmp_path: Path, authority: Authority, signing_key: Ed25519PrivateKey
) -> None:
    write_identity(tmp_path, authority, "localhost:1", signing_key.public_key())
    (tmp_path / "identity" / "device.key").write_bytes(authority.issue("device-1")[0])
    with pytest.raises(CertificateError, match="does not belong"):
        load_identity(tmp_path)


def test_the_key_set_of_the_enrolment_is_the_one_in_force_and_a_later_enrolment_replaces_it(
    cloud: CloudDouble, authority: Authority, tmp_path: Path
) -> None:
    other = Ed25519PrivateKey.generate().public_key()
    entries = [TrustedKey.of(cloud.bundle_key), TrustedKey.of(other)]
    cloud.key_set = KeySet.root(entries, authority_sha256(authority.pem), serial=5).to_message()
    enroll(tmp_path, token_for(cloud, authority))
    assert BundleKeys(tmp_path).keys == (cloud.bundle_key, other)
    assert BundleKeys(tmp_path).sha256 == KeySet.from_message(cloud.key_set).sha256
    cloud.key_set = None  # an older service
    cloud.spent.clear()
    enroll(tmp_path, token_for(cloud, authority), replace=True)
    assert BundleKeys(tmp_path).keys == (cloud.bundle_key,)


def test_a_key_set_of_another_authority_is_no_enrolment(
    cloud: CloudDouble, authority: Authority, tmp_path: Path
) -> None:
    cloud.key_set = KeySet.root([TrustedKey.of(cloud.bundle_key)], "a" * 64).to_message()
    with pytest.raises(EnrolmentError, match="another authority"):
        enroll(tmp_path, token_for(cloud, authority))
    assert not (tmp_path / "identity").exists()


@pytest.mark.parametrize("data", [b"damaged", KeySet.root([TrustedKey(public_key="0" * 64)], "a" * 64).data])
def test_a_damaged_or_foreign_key_set_on_the_disk_is_named_and_a_fixed_key_needs_none(
    tmp_path: Path, authority: Authority, signing_key: Ed25519PrivateKey, data: bytes
) -> None:
    write_identity(tmp_path, authority, "localhost:1", signing_key.public_key())
    (tmp_path / "identity" / "key_set.json").write_bytes(data)
    with pytest.raises(CertificateError, match=r"key_set\.json.*Enrol the device"):
        BundleKeys(tmp_path)
    fixed = BundleKeys(tmp_path, tmp_path / "identity" / "bundle_key.pem")
    assert (fixed.keys, fixed.sha256) == ((signing_key.public_key(),), "")
    assert not fixed.follow([fleet_pb2.KeySet(data=b"anything")])

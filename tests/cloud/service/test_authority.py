"""Certificates of the service's authority."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.service import authority as module
from cloud.service.authority import Authority
from cloud.service.credentials import certificate_names
from cloud.settings import CloudSettings
from shared.errors import CertificateError, EnrolmentError
from tests.cloud.service.harness import signing_request


def certificate_of(identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate_pem)


def names_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def test_the_authority_is_made_once(tmp_path):
    first, second = Authority.open(tmp_path), Authority.open(tmp_path)
    assert first.certificate == second.certificate


def test_a_device_certificate_is_for_clients_only_and_names_the_device(tmp_path):
    authority = Authority.open(tmp_path)
    made = authority.sign_device(signing_request(ec.generate_private_key(ec.SECP256R1()), "someone else"), "press-07")
    certificate = x509.load_pem_x509_certificate(made.pem)
    certificate.verify_directly_issued_by(authority.certificate)
    assert certificate.subject.rfc4514_string() == "CN=press-07"
    assert names_of(certificate) == {"urn:vedette:device:press-07"}
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert f"{certificate.serial_number:x}" == made.serial


def test_the_servers_certificate_carries_its_names_and_is_kept_until_they_change(tmp_path):
    authority = Authority.open(tmp_path)
    first = authority.server_identity(["vedette.example", "10.0.0.7"])
    assert {"localhost", "127.0.0.1", "vedette.example", "10.0.0.7"} <= names_of(certificate_of(first))
    assert authority.server_identity(["vedette.example", "10.0.0.7"]) == first
    assert authority.server_identity(["other.example"]) != first


def test_the_servers_certificate_is_made_anew_before_it_expires(tmp_path, monkeypatch):
    authority = Authority.open(tmp_path)
    first = authority.server_identity([])
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=module.SERVER_DAYS - module.RENEW_BEFORE_DAYS + 1)
    assert later < certificate_of(first).not_valid_after_utc
    monkeypatch.setattr(module, "_now", lambda: later)
    second = authority.server_identity([])
    assert certificate_of(second).not_valid_after_utc > certificate_of(first).not_valid_after_utc


@pytest.mark.parametrize(
    "damage", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_server_certificate_is_replaced_and_a_damaged_authority_is_an_error(tmp_path, damage):
    authority = Authority.open(tmp_path)
    first = authority.server_identity([])
    (tmp_path / "pki" / "server.pem").write_bytes(damage)
    assert authority.server_identity([]) != first
    (tmp_path / "pki" / "ca.key").write_bytes(damage)
    with pytest.raises(CertificateError, match="backup"):
        Authority.open(tmp_path)


def test_keys_of_two_authorities_are_not_mixed_up(tmp_path):
    Authority.open(tmp_path / "one")
    Authority.open(tmp_path / "two")
    other = (tmp_path / "two" / "pki" / "ca.key").read_bytes()
    (tmp_path / "one" / "pki" / "ca.key").write_bytes(other)
    with pytest.raises(CertificateError, match=r"not the key of ca\.crt"):
        Authority.open(tmp_path / "one")


def test_an_expired_authority_names_the_remedy(tmp_path, monkeypatch):
    Authority.open(tmp_path)
    late = dt.datetime.now(dt.UTC) + dt.timedelta(days=module.CA_DAYS + 1)
    monkeypatch.setattr(module, "_now", lambda: late)
    with pytest.raises(CertificateError, match="enrol every device again"):
        Authority.open(tmp_path)


def test_a_request_that_is_none_is_an_enrolment_error(tmp_path):
    authority = Authority.open(tmp_path)
    for request in (
        b"",
        b"\xff\xfe",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ):
        with pytest.raises(EnrolmentError):
            authority.sign_device(request, "press-07")


def test_every_host_devices_may_call_is_in_the_certificate():
    settings = CloudSettings(
        listen="0.0.0.0:7443", advertised_address="cloud.example:443", server_names=("10.1.2.3", "inner.example")
    )
    assert {"cloud.example", "10.1.2.3", "inner.example"} <= set(certificate_names(settings))

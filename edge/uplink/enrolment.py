"""Enrolment of a device: it makes a key, spends a token, and gets a certificate.

The private key never leaves the device. The service is trusted through the CA inside the token, not by name alone.
"""

import json
import os
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.uplink import identity, trust
from shared.enrolment import EnrolmentToken
from shared.errors import CertificateError, ConnectionFailedError, EnrolmentError, StorageError
from shared.files import write_durably
from shared.signing_keys import parse_public_key
from vedette.v1 import fleet_pb2, fleet_pb2_grpc

_REFUSALS = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
)


def enroll(state_dir: Path, token_text: str, *, replace: bool = False, timeout_s: float = 20.0) -> identity.Identity:
    """Spend the token and write the device's identity under `state_dir`.

    Raises EnrolmentError if the token is refused or the answer does not fit it, ConnectionFailedError if the service
    cannot be reached or is not the one the token names, StorageError if the identity cannot be written.
    """
    token = EnrolmentToken.from_text(token_text)
    if identity.is_enrolled(state_dir) and not replace:
        raise EnrolmentError(f"{state_dir / identity.FOLDER}: enrolled already; --replace enrols it again.")
    key = ec.generate_private_key(ec.SECP256R1())
    answer = _ask(token, signing_request(token.device_id, key), timeout_s)
    _check_answer(answer, token, key)
    _write(state_dir / identity.FOLDER, token, key, answer)
    return identity.load_identity(state_dir)


def signing_request(device_id: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the PEM of a request to sign the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _ask(token: EnrolmentToken, request_pem: bytes, timeout_s: float) -> fleet_pb2.EnrollResponse:
    credentials = grpc.ssl_channel_credentials(root_certificates=token.ca_certificate_pem.encode())
    request = fleet_pb2.EnrollRequest(token=token.secret, certificate_signing_request=request_pem)
    with grpc.secure_channel(token.enrolment_address, credentials) as channel:
        try:
            stub = fleet_pb2_grpc.FleetStub(channel)
            answer: fleet_pb2.EnrollResponse = stub.Enroll(request, timeout=timeout_s)
            return answer
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
    if code in _REFUSALS:
        raise EnrolmentError(f"{token.enrolment_address} refused the token: {details}")
    if "CERTIFICATE_VERIFY_FAILED" in details or "handshake" in details.lower():
        raise ConnectionFailedError(
            f"{token.enrolment_address}: the service there is not the one the token names (its certificate is foreign "
            "or carries another name). Check the address, or make a new token."
        )
    if "Connection refused" in details:
        raise ConnectionFailedError(
            f"nobody listens at {token.enrolment_address}. Check that vedette cloud serve runs there, and try again: "
            "the token was not used."
        )
    raise ConnectionFailedError(
        f"{token.enrolment_address}: no answer ({code.name}: {details}). Check that vedette cloud serve runs there and "
        "that this device reaches it, and try again; if the token is then spent, make a new one."
    )


def _check_answer(answer: fleet_pb2.EnrollResponse, token: EnrolmentToken, key: ec.EllipticCurvePrivateKey) -> None:
    where = f"The answer of {token.enrolment_address}"
    if answer.device_id != token.device_id:
        raise EnrolmentError(f"{where} is for device {answer.device_id!r}, and the token for {token.device_id!r}.")
    try:
        certificate = x509.load_pem_x509_certificate(answer.certificate_pem)
        answered = x509.load_pem_x509_certificate(answer.ca_certificate_pem)
        pinned = x509.load_pem_x509_certificate(token.ca_certificate_pem.encode())
        parse_public_key(answer.bundle_key_pem)
        if answer.HasField("key_set"):
            trust.check_root(answer.key_set, token.ca_certificate_pem.encode())
    except (ValueError, CertificateError) as error:
        raise EnrolmentError(f"{where} holds a certificate, key or key set that cannot be used: {error}.") from None
    if answered != pinned:
        raise EnrolmentError(f"{where} names another authority than the token. Make a new token.")
    if certificate.public_key() != key.public_key():
        raise EnrolmentError(f"{where} is not for the key of this device.")


def _write(
    folder: Path, token: EnrolmentToken, key: ec.EllipticCurvePrivateKey, answer: fleet_pb2.EnrollResponse
) -> None:
    """Write the identity; its facts last, because without them the device is not enrolled."""
    facts = {"device_id": answer.device_id, "address": token.address}
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        for name in (identity.RENEWAL_FILE, identity.RENEWED_FILE):  # of the enrolment before
            (folder / name).unlink(missing_ok=True)
        write_durably(folder / identity.KEY_FILE, key_pem, mode=0o600)
        write_durably(folder / identity.CERTIFICATE_FILE, answer.certificate_pem)
        write_durably(folder / identity.CA_FILE, answer.ca_certificate_pem)
        write_durably(folder / identity.BUNDLE_KEY_FILE, answer.bundle_key_pem)
        if answer.HasField("key_set"):
            write_durably(folder / trust.KEY_SET_FILE, answer.key_set.data)
        else:  # an older service: the key alone is trusted
            (folder / trust.KEY_SET_FILE).unlink(missing_ok=True)
        write_durably(folder / identity.FACTS_FILE, json.dumps(facts, indent=1).encode())
    except OSError as error:
        raise StorageError(f"{folder}: the identity cannot be written ({error}). Make a new token then.") from None

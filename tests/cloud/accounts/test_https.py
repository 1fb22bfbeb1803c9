"""Sign-in at a running service with a certificate of its own, and at one behind a trusted proxy."""

import datetime
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from cloud.accounts.requests import NOT_PRIVATE
from cloud.service.people import first_admin_link
from shared.errors import SettingsError
from tests.accounts import CHEAP
from tests.cloud.accounts.forms import PASSWORD, fill
from tests.cloud.service.harness import running, settings_for

NAME = "console.plant.example"


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of localhost, signed by its own key, and the key."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "c")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "console.pem", folder / "console-key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def make_first_account(client: httpx.AsyncClient, link: str) -> str:
    """Make an account and return the name of its session's cookie."""
    answer = await fill(client, httpx.URL(link).path, name="ada", password=PASSWORD, again=PASSWORD)
    assert answer.status_code == 303, answer.text
    assert (await client.get("/api/account")).json()["name"] == "ada"
    return next(iter(client.cookies))


async def test_a_console_with_a_certificate_is_reached_by_https_alone(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    settings = settings_for(tmp_path, console_certificate=certificate, console_key=key, accounts=CHEAP)
    async with running(settings, Ed25519PrivateKey.generate()) as cloud:
        url = cloud.service.addresses.console_url.replace("127.0.0.1", "localhost")
        assert url.startswith("https://")
        link = await first_admin_link(cloud.service.store, settings, url)
        context = ssl.create_default_context(cafile=certificate)
        async with httpx.AsyncClient(base_url=url, verify=context) as client:
            assert await make_first_account(client, link) == "__Host-vedette-session"
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http"))


async def test_a_proxy_with_tls_says_so_if_it_is_trusted(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, trusted_proxies=["127.0.0.1"], console_names=[NAME], accounts=CHEAP)
    async with running(settings, Ed25519PrivateKey.generate()) as cloud:
        url = cloud.service.addresses.console_url
        link = await first_admin_link(cloud.service.store, settings, url)
        headers = {"Host": NAME, "X-Forwarded-Proto": "http", "X-Forwarded-For": "10.9.8.7"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            refused = await client.get("/sign-in")
            assert (refused.status_code, NOT_PRIVATE in refused.text.replace("&#39;", "'")) == (403, True)
        proxied = {**headers, "X-Forwarded-Proto": "https", "Origin": f"https://{NAME}"}
        async with httpx.AsyncClient(base_url=url, headers=proxied) as client:
            page = await client.get(httpx.URL(link).path)
            secret = page.cookies["__Host-vedette-form"]  # the client keeps no cookie of HTTPS for its own HTTP
            client.headers["Cookie"] = f"__Host-vedette-form={secret}"
            fields = {"name": "ada", "password": PASSWORD, "again": PASSWORD}
            made = await fill(client, httpx.URL(link).path, **fields)
            assert made.headers["set-cookie"].startswith("__Host-vedette-session=")
        async with cloud.service.store.reading() as connection:
            query = "SELECT address FROM sessions"
            assert (await connection.exec_driver_sql(query)).scalars().all() == ["10.9.8.7"]


async def test_a_certificate_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    files = {"console_certificate": tmp_path / "none.pem", "console_key": tmp_path / "none.key"}
    with pytest.raises(SettingsError, match="console_certificate, console_key"):
        async with running(settings_for(tmp_path, **files), Ed25519PrivateKey.generate()):
            pass

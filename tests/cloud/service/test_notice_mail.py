"""Mails of notices over STARTTLS and TLS with a login, and one clear sentence for each refusal."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.notice_settings import NoticeSettings
from cloud.service.notices.sinks import open_sink
from shared.webhooks import NotDeliveredError
from tests.cloud.service.mail_server import MailServer, server_context
from tests.edge.certificates import Authority

LOGIN = ("vedette", "open sesame")
MESSAGE = {"delivery_id": "5b1c", "event": "notice", "state": "open", "text": "Device press-07 is silent."}


class Mails:
    """Mail servers, and a sink that sends to them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._authority = folder, Authority("Plant")
        (folder / "ca.pem").write_bytes(self._authority.pem)
        (folder / "password").write_text(f"{LOGIN[1]}\n", encoding="utf-8")

    @contextlib.contextmanager
    def server(self, **changes: Any) -> Iterator[MailServer]:
        context = server_context(self._authority, self._folder)
        server = MailServer(**{"tls": context, "login": LOGIN, **changes})
        try:
            yield server
        finally:
            server.close()

    def send(self, server: MailServer, **changes: Any) -> None:
        sink = {
            "id": "mail",
            "kind": "email",
            "host": "127.0.0.1",
            "port": server.port,
            "ca": self._folder / "ca.pem",
            "username": LOGIN[0],
            "password_file": self._folder / "password",
            "sender": "vedette@plant.example",
            "recipients": ["ada@plant.example"],
        }
        settings = NoticeSettings.model_validate({"sinks": [sink | changes]})
        open_sink(settings.sinks[0]).send(MESSAGE)

    def refusal(self, server: MailServer, **changes: Any) -> str:
        """The sentence of a refusal, on one line."""
        with pytest.raises(NotDeliveredError) as raised:
            self.send(server, **changes)
        assert server.mails == []
        text = str(raised.value).removeprefix(f"the mail server 127.0.0.1:{server.port} ")
        assert "\n" not in text
        assert not re.search(r"b'|_ssl\.c|\[SSL", text)
        assert LOGIN[1] not in text
        return text


@pytest.fixture
def mails(tmp_path: Path) -> Mails:
    return Mails(tmp_path)


@pytest.mark.parametrize(("security", "is_wrapped"), [("starttls", False), ("tls", True)])
def test_a_mail_goes_over_tls_after_a_login(mails: Mails, security: str, is_wrapped: bool) -> None:
    with mails.server(is_wrapped=is_wrapped) as server:
        mails.send(server, security=security)
        (mail,) = server.mails
        assert mail["Subject"] == "[vedette] open: Device press-07 is silent."
        before_login = server.words[: server.words.index("AUTH")]
        assert before_login == (["EHLO"] if is_wrapped else ["EHLO", "STARTTLS", "EHLO"])


def test_a_wrong_password_is_named(mails: Mails, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("guess")
    with mails.server() as server:
        text = mails.refusal(server, password_file=tmp_path / "wrong")
    assert text == (
        "refuses the login of 'vedette' (535 5.7.8 Error: authentication failed): correct username and password_file"
    )


def test_a_password_beyond_ascii_is_refused_without_a_part_of_it(mails: Mails, tmp_path: Path) -> None:
    (tmp_path / "umlaut").write_text("sesam öffne dich", encoding="utf-8")
    with mails.server() as server:
        text = mails.refusal(server, password_file=tmp_path / "umlaut")
    assert text == "cannot get a user name or password beyond ASCII: choose others"


def test_a_certificate_that_is_not_trusted_ends_the_call_before_the_password(mails: Mails, tmp_path: Path) -> None:
    other = Authority("Somebody else")
    (tmp_path / "other.pem").write_bytes(other.pem)
    with mails.server() as server:
        for ca in (None, tmp_path / "other.pem"):
            text = mails.refusal(server, ca=ca)
            assert re.fullmatch(r"has a certificate that is not trusted \(.+\): set ca to .+", text)
        assert "AUTH" not in server.words


def test_a_server_without_tls_or_login_gets_no_password(mails: Mails) -> None:
    with mails.server(tls=None) as server:
        text = mails.refusal(server)
        assert text.startswith("offers no STARTTLS: ")
        assert "AUTH" not in server.words
    with mails.server(login=None) as server:
        assert mails.refusal(server).startswith("offers no login: ")
    with mails.server(is_wrapped=True) as server:  # TLS from the first byte, and the settings say starttls
        text = mails.refusal(server, timeout_s=0.5)
        assert "security" in text


@pytest.mark.parametrize(
    ("word", "answer", "expected"),
    [
        ("MAIL", "553 5.1.8 not your sender", "refuses the message (553 5.1.8 not your sender)"),
        ("RCPT", "550 5.1.1 no such user", "refuses ada@plant.example (550 5.1.1 no such user)"),
        ("DATA", "451 4.3.0 try later", "refuses the message (451 4.3.0 try later)"),
    ],
)
def test_a_refused_message_is_named_with_the_answer(mails: Mails, word: str, answer: str, expected: str) -> None:
    with mails.server() as server:
        server.answers[word] = answer
        assert mails.refusal(server).startswith(expected)

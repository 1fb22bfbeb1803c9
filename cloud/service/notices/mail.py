"""Sink of notices that sends e-mails."""

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

from cloud.notice_settings import NoticeMailSettings
from cloud.service.notices.messages import DELIVERY_ID
from cloud.service.notices.sink_files import read_password, tls_context
from shared.webhooks import NotDeliveredError


class NoticeMail:
    """Sink that sends an e-mail for each notice; a repeated one has the same Message-ID."""

    def __init__(self, settings: NoticeMailSettings) -> None:
        self._settings, self._password = settings, read_password(settings.id, settings.password_file)
        self._tls = tls_context(settings.id, settings.ca) if settings.security != "none" else None

    def send(self, message: Mapping[str, Any]) -> None:
        """See `NoticeSink.send`."""
        settings = self._settings
        try:
            with self._connect() as server:  # ValueError: a host or password that cannot be sent
                if settings.security == "starttls":
                    server.starttls(context=self._tls)
                if settings.username:
                    server.login(settings.username, self._password)
                server.send_message(self._mail(message), settings.sender, settings.recipients)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            problem = _problem(error, settings)
            raise NotDeliveredError(f"the mail server {settings.host}:{settings.port} {problem}") from None

    def close(self) -> None:
        """See `NoticeSink.close`."""

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.security == "tls":
            return smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout_s, context=self._tls)
        return smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)

    def _mail(self, message: Mapping[str, Any]) -> EmailMessage:
        mail = EmailMessage()
        state, text = message.get("state", "test"), str(message.get("text", "Test message of Vedette."))
        mail["Subject"] = " ".join(f"[vedette] {state}: {text}".split())[:200]
        mail["From"], mail["To"] = self._settings.sender, ", ".join(self._settings.recipients)
        mail["Message-ID"] = f"<{message['delivery_id']}@{self._settings.sender.rpartition('@')[2]}>"
        mail[DELIVERY_ID] = str(message["delivery_id"])
        facts = "".join(f"{name}: {value}\n" for name, value in message.items() if name != "text")
        mail.set_content(f"{text}\n\n{facts}")
        return mail


def _problem(error: Exception, settings: NoticeMailSettings) -> str:
    """Return the reason of a failure and its remedy, as the end of a sentence about the server."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"refuses the login of {settings.username!r} ({_answer(error)}): correct username and password_file"
        case smtplib.SMTPNotSupportedError() if "STARTTLS" in str(error):
            return 'offers no STARTTLS: set security = "tls" with its port for TLS (often 465), or use another server'
        case smtplib.SMTPNotSupportedError():
            return f"offers no login: leave username empty, or use another port ({error})"
        case ssl.SSLCertVerificationError():
            return (
                f"has a certificate that is not trusted ({error.verify_message}): set ca to the PEM of its authority, "
                "and host to a name in the certificate"
            )
        case smtplib.SMTPRecipientsRefused():
            answers = (f"{name} ({_text(*answer)})" for name, answer in error.recipients.items())
            return f"refuses {', '.join(answers)}: correct recipients"
        case smtplib.SMTPResponseException():
            return f"refuses the message ({_answer(error)})"
        case UnicodeEncodeError():  # its text would show a part of the password
            return "cannot get a user name or password beyond ASCII: choose others"
        case TimeoutError() | smtplib.SMTPServerDisconnected():
            return f"does not answer ({error}): check host, port and security"
    return f"cannot be used: {error}"


def _answer(error: smtplib.SMTPResponseException) -> str:
    return _text(error.smtp_code, error.smtp_error)


def _text(code: int, answer: bytes | str) -> str:
    """Return the answer of a mail server on one line."""
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return " ".join(f"{code} {text}".split())[:200]

"""A small mail server on a loopback port that keeps what it accepts."""

import base64
import email
import email.policy
import socketserver
import ssl
import threading
from email.message import EmailMessage
from pathlib import Path
from typing import cast

from tests.edge.certificates import Authority


def server_context(authority: Authority, folder: Path, name: str = "mail") -> ssl.SSLContext:
    """TLS of a server at 127.0.0.1, with a certificate of this authority."""
    key, certificate = authority.issue(name, server=True)
    path = folder / f"{name}.pem"
    path.write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class MailServer:
    """Speaks SMTP; `refuses` answers each message with an error.

    With `tls` it offers STARTTLS, or speaks TLS from the first byte if `is_wrapped`. With `login`, user and password,
    it offers AUTH PLAIN after TLS began, and takes mails only after a login. `answers` replace replies by word.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None, *, is_wrapped: bool = False
    ) -> None:
        self.mails: list[EmailMessage] = []
        self.words: list[str] = []
        self.refuses = False
        self.answers: dict[str, str] = {}
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.is_encrypted, self.is_known = False, login is None
                try:
                    if is_wrapped:
                        self.encrypt()
                    self.serve()
                except OSError:  # the client has refused the certificate, or hung up
                    return

            def serve(self) -> None:
                self.reply("220 mail.test")
                while line := self.rfile.readline():
                    word = line.split()[0].upper().decode()
                    server.words.append(word)
                    if word in server.answers:
                        self.reply(server.answers[word])
                    elif word == "QUIT":
                        self.reply("221 bye")
                        return
                    elif word == "EHLO":
                        self.offer()
                    elif word == "STARTTLS" and tls is not None:
                        self.reply("220 go on")
                        self.encrypt()
                    elif word == "AUTH" and self.is_encrypted:
                        self.authenticate(line)
                    elif word == "DATA":
                        self.data()
                    elif not self.is_known and word == "MAIL":
                        self.reply("530 log in first")
                    else:  # MAIL, RCPT, RSET
                        self.reply("451 try later" if server.refuses and word == "MAIL" else "250 good")

            def offer(self) -> None:
                offers = ["mail.test"]
                if tls is not None and not self.is_encrypted:
                    offers.append("STARTTLS")
                if login is not None and self.is_encrypted:
                    offers.append("AUTH PLAIN")
                for place, text in enumerate(offers):
                    self.reply(f"250{' ' if place == len(offers) - 1 else '-'}{text}")

            def encrypt(self) -> None:
                assert tls is not None
                self.request = tls.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", buffering=0)
                self.is_encrypted = True

            def authenticate(self, line: bytes) -> None:
                user, password = base64.b64decode(line.split()[2]).decode().split("\0")[1:]
                self.is_known = (user, password) == login
                self.reply("235 welcome" if self.is_known else "535 5.7.8 Error: authentication failed")

            def data(self) -> None:
                self.reply("354 go on")
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b"."))
                parsed = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                server.mails.append(cast(EmailMessage, parsed))
                self.reply("250 kept")

            def reply(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

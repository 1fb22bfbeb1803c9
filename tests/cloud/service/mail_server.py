"""A small mail server on a loopback port that keeps what it accepts."""

import email
import email.policy
import socketserver
import threading
from email.message import EmailMessage
from typing import cast


class MailServer:
    """Speaks SMTP without encryption; `refuses` answers each message with an error."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuses = False
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.reply("220 mail.test")
                while line := self.rfile.readline():
                    word = line[:4].upper().strip()
                    if word == b"QUIT":
                        self.reply("221 bye")
                        return
                    if word == b"EHLO":
                        self.reply("250 mail.test")
                    elif word == b"DATA":
                        self.data()
                    else:  # MAIL, RCPT, RSET
                        self.reply("451 try later" if server.refuses and word == b"MAIL" else "250 good")

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

"""Sessions of requests and of open connections: looked up in the store, kept for a moment, ended within seconds."""

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.account_settings import AccountSettings
from cloud.accounts.requests import SESSION_COOKIE, client_address, read_cookie, set_cookie
from cloud.store import Store
from cloud.store.sessions import NewSession, Session, find_sessions, note_seen, secret_hash
from shared.errors import StorageError
from shared.logs import EventLog

KEPT_S, KEPT_SESSIONS = 1.0, 4096
CHECK_S = 2.0  # between two looks at the sessions of open connections
MAX_SECRET_CHARACTERS = 64
MAX_OPEN_OF_SESSION = 64  # streams and sockets
SESSION_ENDED = 4401  # close code of a web socket whose session has ended
_LOG = EventLog("accounts")


class SessionBook:
    """Sessions over two connections to one store; an end has effect within KEPT_S."""

    def __init__(self, reading: Store, writing: Store, settings: AccountSettings) -> None:
        self._reading, self._writing, self._settings = reading, writing, settings
        self._kept: OrderedDict[str, tuple[float, Session]] = OrderedDict()

    async def find(self, scope: Scope) -> tuple[str, Session] | None:
        """Return the secret in the cookie of a request and its session, if that gives access; raises StorageError."""
        secret = read_cookie(scope, SESSION_COOKIE)
        if not secret or len(secret) > MAX_SECRET_CHARACTERS:
            return None
        digest, now_s = secret_hash(secret), time.time()
        read_at_s, session = self._kept.get(digest, (-KEPT_S, None))
        if session is None or time.monotonic() - read_at_s >= KEPT_S:
            session = (await self.read([digest])).get(digest)
        if session is None or not session.is_valid(now_s, self._settings.session_idle_s):
            return None
        try:
            await note_seen(self._writing, session, now_s)
        except StorageError as error:  # reading goes on while nothing can be written
            _LOG.warning("session_use_not_stored", session=session.session_id, error=error)
        return secret, session

    async def read(self, hashes: Collection[str]) -> dict[str, Session]:
        """Return the sessions with these hashes from the store; raises StorageError."""
        found = await find_sessions(self._reading, hashes)
        for digest in hashes:
            self._kept.pop(digest, None)
        self._kept.update({digest: (time.monotonic(), session) for digest, session in found.items()})
        while len(self._kept) > KEPT_SESSIONS:
            self._kept.popitem(last=False)
        return found

    def forget(self) -> None:
        """Read every session from the store again, after a change."""
        self._kept.clear()

    def is_valid(self, session: Session | None) -> bool:
        """Return whether a session gives access now."""
        return session is not None and session.is_valid(time.time(), self._settings.session_idle_s)

    def new(self, scope: Scope, user_name: str, method: str) -> NewSession:
        """Return a session for the browser of a request, to store."""
        browser = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
        return NewSession(
            secret=secrets.token_urlsafe(32),
            session_id=secrets.token_hex(6),
            user_name=user_name,
            method=method,
            address=client_address(scope),
            browser=browser,
            idle_s=self._settings.session_idle_s,
            max_s=self._settings.session_max_s,
            replaces=read_cookie(scope, SESSION_COOKIE)[:MAX_SECRET_CHARACTERS],
        )

    def hand_over(self, response: Response, scope: Scope, new: NewSession) -> None:
        """Give a stored session to the browser."""
        self.forget()
        set_cookie(response, scope, SESSION_COOKIE, new.secret, new.max_s)


class OpenConnections:
    """Web sockets and streams; each ends within CHECK_S seconds or so after its session."""

    def __init__(self, sessions: SessionBook, store: Store) -> None:
        self._sessions, self._store = sessions, store
        self._open: set[_Connection] = set()
        self._watching: asyncio.Task[None] | None = None

    async def run(self, session: Session, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection until it or the session ends."""
        if sum(each.digest == session.secret_sha256 for each in self._open) >= MAX_OPEN_OF_SESSION:
            message = "Too many open pages of this session: close some."
            await PlainTextResponse(message, status_code=429)(scope, receive, send)
            return
        connection = _Connection(session.secret_sha256, receive, send, is_socket=scope["type"] == "websocket")
        self._open.add(connection)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            await app(scope, connection.receive, connection.send)
        except asyncio.CancelledError:
            if not connection.is_ended:
                raise
            connection.task.uncancel()
        finally:
            await self._leave(connection)
        await connection.finish()

    async def _leave(self, connection: "_Connection") -> None:
        """Forget a connection; the last one ends the watch."""
        self._open.discard(connection)
        if not self._open and (watching := self._watching) is not None:
            self._watching = None
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self) -> None:
        """End connections whose sessions have ended, until cancelled; read the store after commits only."""
        version, found = -1, dict[str, Session]()
        while True:
            await asyncio.sleep(CHECK_S)
            looked_at = list(self._open)  # others may open while the store is read
            try:
                hashes = {connection.digest for connection in looked_at}
                if (newest := self._store.version()) != version or not hashes <= found.keys():
                    found = await self._sessions.read(hashes)
                    version = newest
            except StorageError:  # sessions that were never read are looked at when the store can be read
                looked_at = [connection for connection in looked_at if connection.digest in found]
            for connection in looked_at:
                if not self._sessions.is_valid(found.get(connection.digest)):
                    connection.end()


class _Connection:
    """One connection: the rest of its messages is swallowed once its session has ended."""

    def __init__(self, digest: str, receive: Receive, send: Send, *, is_socket: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.digest, self.task = digest, task
        self._receive, self._send, self._is_socket = receive, send, is_socket
        self._started = self._finished = False
        self.is_ended = False

    async def receive(self) -> Message:
        if self.is_ended:
            return {"type": "websocket.disconnect" if self._is_socket else "http.disconnect", "code": SESSION_ENDED}
        return await self._receive()

    async def send(self, message: Message) -> None:
        if not self.is_ended:
            self._note(message)
            await self._send(message)

    def end(self) -> None:
        self.is_ended = True
        self.task.cancel()

    async def finish(self) -> None:
        """Tell the browser that the connection is over."""
        if not self.is_ended or self._finished:
            return
        with contextlib.suppress(Exception):  # the browser may have gone meanwhile
            if self._is_socket:
                await self._send({"type": "websocket.close", "code": SESSION_ENDED})
            elif self._started:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _note(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        self._started |= kind == "http.response.start"
        self._finished |= kind == "websocket.close" or (
            kind == "http.response.body" and not message.get("more_body", False)
        )

"""A TCP proxy whose line can be cut, held without a word, or made slow."""

import contextlib
import selectors
import socket
import threading
import time


class Proxy:
    """Forwards connections to `target_port`. `cut`: connections are reset and refused. `hold`: bytes stop flowing.
    `slow_down`: limit in bytes a second to the target, over all connections."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._held, self._closed = threading.Event(), threading.Event()
        self._bytes_per_s, self._allowed, self._counted_at_s = 0.0, 0.0, time.monotonic()
        self._near: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        with self._lock:
            self._listener.close()
            for one in list(self._pairs):
                self._drop(one)

    def mend(self) -> None:
        with self._lock:
            self._listener = self._listen(self.port)

    def hold(self) -> None:
        self._held.set()

    def release(self) -> None:
        self._held.clear()

    def slow_down(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s

    def close(self) -> None:
        self._closed.set()
        self._thread.join(5)
        self.cut()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(16)
        listener.setblocking(False)
        return listener

    def _run(self) -> None:
        while not self._closed.wait(0.002):
            with self._lock:
                self._accept()
                if not self._held.is_set():
                    self._pump()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target_port), timeout=2)
            self._pairs[near], self._pairs[far] = far, near
            self._near.add(near)
            for one in (near, far):
                one.setblocking(False)

    def _pump(self) -> None:
        if not self._pairs:
            return
        with selectors.DefaultSelector() as selector:
            for one in self._pairs:
                selector.register(one, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(0)]
        for one in ready:
            assert isinstance(one, socket.socket)
            if one not in self._pairs:
                continue
            try:
                most = self._allowance() if one in self._near else 1 << 16
                if not most:
                    continue
                data = one.recv(most)
                self._allowed -= len(data) if one in self._near else 0
                if data:
                    other = self._pairs[one]
                    other.setblocking(True)
                    other.sendall(data)
                    other.setblocking(False)
                else:
                    self._drop(one)
            except BlockingIOError:
                continue
            except OSError:
                self._drop(one)

    def _allowance(self) -> int:
        """How much may go to the target now."""
        if not self._bytes_per_s:
            return 1 << 16
        now_s = time.monotonic()
        self._allowed = min(4096.0, self._allowed + (now_s - self._counted_at_s) * self._bytes_per_s)
        self._counted_at_s = now_s
        return int(self._allowed)

    def _drop(self, one: socket.socket) -> None:
        self._near.discard(one)
        other = self._pairs.pop(one, None)
        one.close()
        if other is not None:
            self._pairs.pop(other, None)
            other.close()

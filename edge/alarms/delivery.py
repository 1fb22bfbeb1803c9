"""Delivery of alarms from sources to sinks. Each sink has its own thread, so a hanging sink delays no other."""

import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.alarms.grouping import Grouping
from edge.alarms.message import Alarm, Message, StreamWarning
from edge.alarms.outbox import MAX_WAITING, Outbox, WaitingMessage
from edge.alarms.sinks import Sink, open_sink
from edge.counters import Counters
from edge.disk import disk_error_text
from edge.settings.alarms import AlarmSinkSettings
from shared.backoff import HALF_JITTER, Backoff
from shared.logs import EventLog, Throttle
from shared.status import SinkStatus
from shared.webhooks import NotDeliveredError

WAKE_S = 0.2
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 60.0

log = EventLog("alarms")


class AlarmDelivery:
    """All sinks of an agent."""

    def __init__(
        self, settings: Sequence[AlarmSinkSettings], outbox: Path, counters: Counters, device_id: Callable[[], str]
    ) -> None:
        """Open the sinks. Raises DataError for files they cannot use, StorageError for the outbox."""
        self._outbox = Outbox(outbox) if settings else None
        self._senders = []
        if self._outbox is not None:
            self._senders = [_Sender(sink, open_sink(sink), self._outbox, counters, device_id) for sink in settings]

    def start(self) -> None:
        """Start sending, beginning with the messages of an earlier run."""
        for sender in self._senders:
            sender.start()

    def tell(self, alarm: Alarm) -> None:
        """Hand the alarm to each sink of its source, without waiting."""
        for sender in self._senders:
            sender.tell(alarm)

    def hold(self, source_id: str, warning: StreamWarning | None = None) -> None:
        """Send a warning in place of the alarms of a source, until `release`. None: it was sent by an earlier run."""
        for sender in self._senders:
            sender.hold(source_id, warning)

    def release(self, source_id: str, warning: StreamWarning | None = None) -> None:
        """Send the alarms of a source again, after a warning that the stream matches again."""
        for sender in self._senders:
            sender.release(source_id, warning)

    def status(self) -> dict[str, SinkStatus]:
        """Return the number of waiting messages and the last error of each sink."""
        return {sender.id: SinkStatus(waiting=sender.waiting(), error=sender.error) for sender in self._senders}

    def stop(self, timeout_s: float) -> None:
        """Store held messages and stop. Messages not delivered within the timeout are sent by the next run."""
        end_s = time.monotonic() + timeout_s
        for sender in self._senders:
            sender.request_stop()
        ended = [sender.join(max(0.0, end_s - time.monotonic())) for sender in self._senders]
        if self._outbox is not None and all(ended):
            self._outbox.close()


class _Sender:
    """Sends the messages of one sink in order."""

    def __init__(
        self,
        settings: AlarmSinkSettings,
        sink: Sink,
        outbox: Outbox,
        counters: Counters,
        device_id: Callable[[], str],
    ) -> None:
        self.id, self.error = settings.id, ""
        self._settings, self._sink, self._outbox = settings, sink, outbox
        self._counters, self._device_id = counters, device_id
        self._grouping = Grouping(settings.quiet_s, settings.max_per_minute)
        self._done_seq = 0  # delivered up to here, even if the disk refused the deletion
        self._unkept: deque[WaitingMessage] = deque(maxlen=MAX_WAITING)  # while the disk refuses
        self._changed = threading.Condition()
        self._stopping = False
        self._throttle = Throttle()
        self._thread = threading.Thread(target=self._run, name=f"alarms-{settings.id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, alarm: Alarm) -> None:
        if self._settings.sources and alarm.source_id not in self._settings.sources:
            return
        with self._changed:
            message = self._grouping.add(alarm)
            if message is not None:
                self._keep(message)
                self._changed.notify_all()

    def hold(self, source_id: str, warning: StreamWarning | None) -> None:
        with self._changed:
            self._grouping.hold(source_id)
            self._announce(source_id, warning)

    def release(self, source_id: str, warning: StreamWarning | None) -> None:
        with self._changed:
            self._grouping.release(source_id)
            self._announce(source_id, warning)

    def waiting(self) -> int:
        try:
            return self._outbox.count(self.id, self._done_seq) + len(self._unkept)
        except sqlite3.Error:
            return len(self._unkept)

    def request_stop(self) -> None:
        with self._changed:
            for message in self._grouping.rest():
                self._keep(message)
            self._stopping = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread, and return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _announce(self, source_id: str, warning: StreamWarning | None) -> None:
        """Keep a warning for a source of this sink. Warnings are rare, so no rate limits apply to them."""
        if warning is None or (self._settings.sources and source_id not in self._settings.sources):
            return
        self._keep(warning)
        self._changed.notify_all()

    def _keep(self, message: Message | StreamWarning) -> None:
        """Store a message on disk, or in memory while the disk refuses."""
        alarm_id, source_id = str(uuid.uuid4()), message.source_id
        body = message.body(alarm_id, self._device_id())
        try:
            self._drop(self._outbox.add(self.id, alarm_id, source_id, body), "too many")
        except sqlite3.Error as error:
            if len(self._unkept) == MAX_WAITING:
                self._drop(1, "too many")
            self._unkept.append(WaitingMessage(0, alarm_id, source_id, body, self._outbox.clock.now_s()))
            if self._throttle.allow("unkept"):
                text = disk_error_text(error, self._outbox.path)
                log.error("alarm_not_kept", sink=self.id, error=text, advice="free some space; it waits in memory")

    def _run(self) -> None:
        backoff = Backoff(FIRST_WAIT_S, MAX_WAIT_S, jitter=HALF_JITTER)
        try:
            while True:
                with self._changed:
                    for due in self._grouping.due():
                        self._keep(due)
                message = self._next()
                if message is None:
                    with self._changed:
                        if self._stopping:
                            return
                        self._changed.wait(WAKE_S)
                    continue
                if self._deliver(message):
                    backoff.reset()
                    continue
                with self._changed:
                    if self._stopping:
                        return
                    self._changed.wait_for(lambda: self._stopping, backoff.next_s())
        finally:
            with self._changed:
                if self._unkept:
                    self._drop(len(self._unkept), "the disk refused them until the end")
            self._sink.close()

    def _next(self) -> WaitingMessage | None:
        try:
            message = self._outbox.oldest(self.id, self._done_seq)
        except sqlite3.Error:
            message = None
        with self._changed:
            return message or (self._unkept[0] if self._unkept else None)

    def _deliver(self, message: WaitingMessage) -> bool:
        """Send a message, and delete it if it was taken or is too old. Return whether it is done."""
        if self._outbox.clock.now_s() - message.raised_at_s > self._settings.max_age_s:
            self._forget(message)
            self._drop(1, "too old")
            return True
        try:
            self._sink.send(message)
        except NotDeliveredError as error:
            self._fail(str(error))
            return False
        except Exception as error:  # raised by a sink's library: the thread continues, since no other serves this sink
            self._fail(f"unexpected: {error!r}")
            return False
        if self.error:
            log.info("alarm_sink_recovered", sink=self.id)
        self.error = ""
        self._counters.add({"alarms_sent": 1})
        self._forget(message)
        return True

    def _fail(self, error: str) -> None:
        if error != self.error or self._throttle.allow("failed"):
            log.warning("alarm_not_delivered", sink=self.id, error=error, waiting=self.waiting())
        self.error = error

    def _forget(self, message: WaitingMessage) -> None:
        if message.seq == 0:
            with self._changed:
                if self._unkept and self._unkept[0] is message:
                    self._unkept.popleft()
            return
        self._done_seq = message.seq
        try:
            self._outbox.remove(self.id, message.seq)  # with those before that could not be removed then
        except sqlite3.Error as error:
            if self._throttle.allow("not removed"):
                text = disk_error_text(error, self._outbox.path)
                log.error("alarm_not_removed", sink=self.id, error=text, advice="it may be sent again after a restart")

    def _drop(self, count: int, reason: str) -> None:
        if count:
            self._counters.add({"alarms_dropped": count})
            if self._throttle.allow(reason, count):
                log.error("alarms_dropped", sink=self.id, alarms=count, reason=reason)

"""Part of the service that opens and closes notices, and empties the outbox of each sink."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from cloud.notice_settings import NoticeSettings
from cloud.service.notices.conditions import present
from cloud.service.notices.feed import feed_verdicts, forget_feeds
from cloud.service.notices.messages import VerdictSink, follows_verdicts, notice_message, sinks_of_kind
from cloud.service.notices.sinks import NoticeSink, VerdictWebhook, open_sink
from cloud.store import Store
from cloud.store.notices import Absences, follow
from cloud.store.outbox import delivered, drop_old, due, failed
from cloud.store.webhooks import stored_webhooks
from shared.backoff import HALF_JITTER, Backoff
from shared.errors import StorageError
from shared.logs import EventLog, Throttle
from shared.webhooks import NotDeliveredError

POLL_S = 1.0
AT_ONCE = 50
FIRST_WAIT_S, LAST_WAIT_S = 1.0, 300.0
WEBHOOKS_EVERY_S = 2.0  # seconds between two checks for webhooks that were made or deleted
_LOG = EventLog("notices")


class NoticeCenter:
    """Owner of the notices of a service. Each sink is served by a task of its own, so that none delays another."""

    def __init__(
        self, store: Store, settings: NoticeSettings, data_dir: Path, on_failure: Callable[[Exception], None]
    ) -> None:
        """Open the sinks; raises DataError or MissingExtraError for one that cannot be used."""
        self._store, self._settings, self._data_dir, self._on_failure = store, settings, data_dir, on_failure
        self._sinks = [(sink, open_sink(sink)) for sink in settings.sinks]
        self._webhooks: dict[str, asyncio.Task[None]] = {}  # by id
        self._started_at_s = time.time()
        self._absences = Absences(settings.close_after_s)
        self._throttle = Throttle(60.0)

    async def run(self) -> None:
        """Check and deliver until cancelled."""
        self._absences = Absences(self._settings.close_after_s)  # another process may have followed meanwhile
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._repeat(self.check, self._settings.check_every_s))
                for settings, sink in self._sinks:
                    self._serve(tasks, settings, sink)
                self._webhooks.clear()
                tasks.create_task(self._repeat(partial(self._follow_webhooks, tasks), WEBHOOKS_EVERY_S))
        finally:
            await asyncio.gather(*(asyncio.to_thread(sink.close) for _, sink in self._sinks))

    async def check(self, now_s: float | None = None) -> None:
        """Open a notice for each new problem and close those absent for `close_after_s`; raises StorageError."""
        settings, now_s = self._settings, time.time() if now_s is None else now_s
        found = await present(self._store, settings, self._data_dir, started_at_s=self._started_at_s, now_s=now_s)
        sinks_of = partial(sinks_of_kind, settings)
        opened, closed = await follow(self._store, found, self._absences, notice_message, sinks_of, now_s=now_s)
        for notice in opened:
            _LOG.warning("notice_opened", kind=notice.kind, subject=notice.subject, text=notice.text)
        for notice in closed:
            _LOG.info("notice_closed", kind=notice.kind, subject=notice.subject)
        await forget_feeds(self._store, [sink.id for sink in follows_verdicts(settings.sinks)])
        async with self._store.reading() as connection:
            ids = [sink.sink for sink in (*settings.sinks, *await stored_webhooks(connection))]
        if dropped := await drop_old(self._store, ids, now_s - settings.max_age_s):
            _LOG.error("messages_dropped", count=dropped, advice="see vedette cloud notices test")

    async def deliver(self, target: VerdictSink, sink: NoticeSink, backoff: Backoff) -> None:
        """Send the messages of a sink that are due; wait after the first failure. Raises StorageError."""
        if target.wants_verdicts:
            while await feed_verdicts(self._store, target):
                pass
        for item in await due(self._store, target.sink, time.time(), AT_ONCE):
            try:
                await asyncio.to_thread(sink.send, item.message)
            except Exception as error:  # no error of a sink may end the service
                reason = str(error) if isinstance(error, NotDeliveredError) else f"{type(error).__name__}: {error}"
                wait_s = backoff.next_s()
                await failed(self._store, item, time.time() + wait_s, reason)
                if count := self._throttle.allow(target.sink):
                    _LOG.warning("message_not_delivered", sink=target.sink, reason=reason, count=count)
                await asyncio.sleep(wait_s)
                return
            backoff.reset()
            await delivered(self._store, [item.number])

    def _serve(self, tasks: asyncio.TaskGroup, target: VerdictSink, sink: NoticeSink) -> asyncio.Task[None]:
        """Deliver the messages of a sink in a task of its own."""
        backoff = Backoff(FIRST_WAIT_S, LAST_WAIT_S, jitter=HALF_JITTER)
        return tasks.create_task(self._repeat(partial(self.deliver, target, sink, backoff), POLL_S))

    async def _follow_webhooks(self, tasks: asyncio.TaskGroup) -> None:
        """Serve the webhooks in the store, and no other ones; raises StorageError."""
        async with self._store.reading() as connection:
            found = {webhook.webhook_id: webhook for webhook in await stored_webhooks(connection)}
        for webhook_id in self._webhooks.keys() - found.keys():
            self._webhooks.pop(webhook_id).cancel()
        for webhook_id in found.keys() - self._webhooks.keys():
            webhook = found[webhook_id]
            sink = VerdictWebhook(webhook, self._settings.webhook_hosts)
            self._webhooks[webhook_id] = self._serve(tasks, webhook, sink)

    async def _repeat(self, action: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await action()
            except StorageError as error:
                self._on_failure(error)
            await asyncio.sleep(every_s)

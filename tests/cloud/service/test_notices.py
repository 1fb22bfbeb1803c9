"""Notices open and close with their problems, and reach real receivers at least once."""

import asyncio
import json
import time

import paho.mqtt.client as mqtt
import pytest
from sqlalchemy import delete, select, update
from typer.testing import CliRunner

from cloud.notice_settings import NoticeSettings
from cloud.rollouts.phases import RolloutEvent
from cloud.rollouts.stages import Stage
from cloud.service.notices import feed
from cloud.service.notices.center import NoticeCenter
from cloud.service.notices.feed import feed_verdicts
from cloud.service.notices.sinks import open_sink
from cloud.settings import CloudSettings
from cloud.store.fleet import Place, set_place, store_heartbeat
from cloud.store.notices import NoticeFilter, notice_page
from cloud.store.outbox import add_deliveries, drop_old, due, failed, waiting
from cloud.store.retention import remove_old
from cloud.store.rollouts import active_rollouts, begin, change
from cloud.store.schema import deliveries, devices, heartbeats, notices
from shared.backoff import Backoff
from shared.bundle import sign
from shared.cli import build
from shared.errors import DataError
from shared.status import Heartbeat
from shared.webhooks import NotDeliveredError, signature
from tests.cloud.console.filled_store import CAMERA, KEY, SHUTTLE, manifest
from tests.cloud.service.mail_server import MailServer
from tests.edge.broker import Broker, needs_broker
from tests.webhook import SECRET

ADDRESSES = {"sender": "vedette@plant.example", "recipients": ["ada@plant.example", "bob@plant.example"]}


@pytest.fixture
def mail():
    server = MailServer()
    yield server
    server.close()


def settings_of(*sinks: dict, **changes) -> NoticeSettings:
    return NoticeSettings.model_validate({"sinks": sinks, "service_free_bytes": 0, "close_after_s": 0, **changes})


def webhook(hook, secret, **changes) -> dict:
    return {"id": "hook", "kind": "webhook", "url": hook.url, "secret_file": secret, **changes}


async def let_report(fleet, *kinds) -> None:
    """Forget the heartbeats of all other devices."""
    async with fleet.store.writing() as connection:
        others = heartbeats.c.device_id.not_in([kind.device_id for kind in kinds])
        await connection.execute(delete(heartbeats).where(others))


def center_of(fleet, settings: NoticeSettings) -> NoticeCenter:
    center = NoticeCenter(fleet.store, settings, fleet.store.path.parent, lambda _: None)
    center._started_at_s = 0.0
    return center


async def listed(fleet, **wanted) -> list[tuple[str, str, bool]]:
    async with fleet.store.reading() as connection:
        found = await notice_page(connection, NoticeFilter(**wanted))
    return [(item.kind, item.subject, item.closed_at_s is None) for item in found]


async def send_all(center: NoticeCenter) -> None:
    for settings, sink in center._sinks:
        await center.deliver(settings, sink, Backoff(0.01, 0.02))


async def test_each_problem_opens_one_notice_that_closes_with_it(fleet):
    center = center_of(fleet, settings_of())
    await let_report(fleet, SHUTTLE)
    await center.check()
    assert await listed(fleet) == []
    late_s = time.time() + 901
    for _ in range(2):
        await center.check(late_s)
    assert await listed(fleet) == [("device_silent", "shuttle-a", True)]
    await store_heartbeat(fleet.store, SHUTTLE.device_id, Heartbeat(disk_free_bytes=2**20))
    async with fleet.store.writing() as connection:
        one = devices.c.device_id == CAMERA.device_id
        await connection.execute(update(devices).where(one).values(certificate_expires_at_s=time.time() + 86_400))
    await center.check()
    assert sorted(await listed(fleet, is_open=True)) == [
        ("certificate_expiring", CAMERA.device_id, True),
        ("device_disk_full", "shuttle-a", True),
    ]
    assert await listed(fleet, kind="device_silent") == [("device_silent", "shuttle-a", False)]
    full = center_of(fleet, settings_of(service_free_bytes=2**60))
    await full.check()
    assert [kind for kind, _, _ in await listed(fleet, is_open=True)].count("service_disk_full") == 1


async def test_a_problem_that_comes_and_goes_is_one_notice_that_retention_deletes(fleet):
    center, now_s = center_of(fleet, settings_of(close_after_s=300)), time.time()
    await let_report(fleet, SHUTTLE)
    for free in (0, 2**40, 0, 2**40):
        await store_heartbeat(fleet.store, SHUTTLE.device_id, Heartbeat(disk_free_bytes=free))
        await center.check(now_s)
        now_s += 200
    await center.check(now_s)  # absent for 200 s
    keep = {"payloads_days": 0, "verdicts_days": 0, "events_days": 1}
    assert (await remove_old(fleet.store, **keep))["notices"] == 0
    assert await listed(fleet) == [("device_disk_full", "shuttle-a", True)]
    await store_heartbeat(fleet.store, SHUTTLE.device_id, Heartbeat(disk_free_bytes=2**40))
    await center.check(now_s + 100)
    assert await listed(fleet) == [("device_disk_full", "shuttle-a", False)]
    async with fleet.store.writing() as connection:
        await connection.execute(update(notices).values(closed_at_s=time.time() - 90_000))
    assert (await remove_old(fleet.store, **keep))["notices"] == 1


async def test_devices_are_not_silent_because_the_service_was_off(fleet):
    await let_report(fleet, SHUTTLE)
    async with fleet.store.writing() as connection:
        await connection.execute(update(heartbeats).values(received_at_s=time.time() - 7200))
    center = NoticeCenter(fleet.store, settings_of(), fleet.store.path.parent, lambda _: None)
    await center.check()
    assert await listed(fleet) == []
    await center.check(time.time() + 901)
    assert len(await listed(fleet)) == 1


async def test_a_webhook_gets_each_change_signed_and_again_until_it_accepts(fleet, hook, secret):
    center = center_of(fleet, settings_of(webhook(hook, secret, kinds=["device_silent"])))
    await let_report(fleet, SHUTTLE, CAMERA)
    await store_heartbeat(fleet.store, CAMERA.device_id, Heartbeat(disk_free_bytes=0))  # of another kind
    hook.status = 503
    await center.check(time.time() + 901)
    await send_all(center)
    async with fleet.store.reading() as connection:
        count, error = (await waiting(connection))["hook"]
    assert count == 2  # both devices are silent then
    assert "503" in error
    hook.status = 200
    hook.requests.clear()
    restarted = center_of(fleet, settings_of(webhook(hook, secret)))
    await asyncio.sleep(0.05)
    await send_all(restarted)
    assert {body["subject"] for body in hook.bodies} == {"shuttle-a", CAMERA.device_id}
    headers, body = hook.requests[0]
    assert headers["Vedette-Signature"] == f"v1={signature(SECRET, headers['Vedette-Timestamp'], body)}"
    told = json.loads(body)
    assert headers["Vedette-Delivery-Id"] == told["delivery_id"]
    assert (told["event"], told["kind"], told["state"]) == ("notice", "device_silent", "open")
    await restarted.check()
    await send_all(restarted)
    closed = [item for item in hook.bodies if item["state"] == "closed"]
    assert {item["notice_id"] for item in closed} == {item["notice_id"] for item in hook.bodies[:2]}


async def test_a_message_that_is_sent_and_not_noted_is_repeated_with_its_id(fleet, hook, secret, monkeypatch):
    center = center_of(fleet, settings_of(webhook(hook, secret)))
    async with fleet.store.writing() as connection:
        await add_deliveries(connection, ["hook"], {"event": "notice"})

    async def killed(*_) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr("cloud.service.notices.center.delivered", killed)
    with pytest.raises(asyncio.CancelledError):
        await send_all(center)
    monkeypatch.undo()
    await send_all(center_of(fleet, settings_of(webhook(hook, secret))))
    assert len(hook.bodies) == 2
    assert hook.bodies[0]["delivery_id"] == hook.bodies[1]["delivery_id"]


async def test_one_message_that_is_never_accepted_blocks_no_other(fleet, hook, secret):
    center = center_of(fleet, settings_of(webhook(hook, secret)))
    async with fleet.store.writing() as connection:
        for number in range(3):
            await add_deliveries(connection, ["hook"], {"number": number})
    hook.status = 400
    refused = asyncio.create_task(center.deliver(*center._sinks[0], Backoff(60, 60)))
    async with asyncio.timeout(10):
        while len(await due(fleet.store, "hook", time.time(), 3)) == 3:
            await asyncio.sleep(0.02)
    refused.cancel()
    hook.status = 200
    hook.requests.clear()
    await send_all(center)
    assert [body["number"] for body in hook.bodies] == [1, 2]


async def test_an_e_mail_names_the_problem_and_keeps_its_id(fleet, mail):
    sink = {"id": "mail", "kind": "email", "host": "127.0.0.1", "port": mail.port, "security": "none", **ADDRESSES}
    center = center_of(fleet, settings_of(sink))
    await let_report(fleet, SHUTTLE)
    mail.refuses = True
    await center.check(time.time() + 901)
    await send_all(center)
    assert mail.mails == []
    mail.refuses = False
    await asyncio.sleep(0.05)
    await send_all(center)
    (sent,) = mail.mails
    assert sent["To"] == "ada@plant.example, bob@plant.example"
    assert sent["Subject"].startswith("[vedette] open: Device shuttle-a has sent no heartbeat for")
    assert sent["Message-ID"] == f"<{sent['Vedette-Delivery-Id']}@plant.example>"
    assert "kind: device_silent" in sent.get_content()


async def test_any_error_of_a_sink_is_a_message_that_waits(fleet):
    mail = {"id": "mail", "kind": "email", "host": "mail..example", "security": "none", **ADDRESSES}
    center = center_of(fleet, settings_of(mail))

    class Faulty:
        def send(self, _) -> None:
            raise KeyError("answer")

    async with fleet.store.writing() as connection:
        await add_deliveries(connection, ["mail"], {"event": "notice"})
    for sink, expected in ((center._sinks[0][1], "mail server mail..example"), (Faulty(), "KeyError: 'answer'")):
        await center.deliver(center._sinks[0][0], sink, Backoff(0.01, 0.02))
        async with fleet.store.reading() as connection:
            count, error = (await waiting(connection))["mail"]
        assert (count, expected in error) == (1, True)
        await asyncio.sleep(0.05)


async def test_the_newest_error_of_a_sink_is_listed(fleet):
    async with fleet.store.writing() as connection:
        for number in range(3):
            await add_deliveries(connection, ["hook"], {"number": number})
    now_s = time.time()
    first, second, _ = await due(fleet.store, "hook", now_s, 3)
    for message, wait_s, error in ((second, 1, "refused"), (first, 3, "answers 503")):
        await failed(fleet.store, message, now_s + wait_s, error)
    async with fleet.store.reading() as connection:
        assert await waiting(connection) == {"hook": (3, "answers 503")}


@needs_broker
async def test_a_broker_confirms_each_message(fleet, tmp_path):
    broker = Broker(tmp_path)
    sink = {
        "id": "plant",
        "kind": "mqtt",
        "url": f"mqtt://127.0.0.1:{broker.port}",
        "topic": "notices",
        "timeout_s": 0.2,
    }
    center = center_of(fleet, settings_of(sink))
    async with fleet.store.writing() as connection:
        await add_deliveries(connection, ["plant"], {"event": "notice"})
    await send_all(center)  # there is no broker yet
    broker.start()
    received: list[dict] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _, __, message: received.append(json.loads(message.payload))
    client.connect("127.0.0.1", broker.port)
    client.subscribe("notices", qos=1)
    client.loop_start()
    try:
        async with asyncio.timeout(10):
            while not received:
                await send_all(center)
                await asyncio.sleep(0.05)
    finally:
        center._sinks[0][1].close()
        client.disconnect()
        client.loop_stop()
        broker.stop()
    assert received[0]["event"] == "notice"


async def test_verdicts_go_to_their_subscribers_by_decision_site_and_group(fleet, hook, secret, monkeypatch):
    monkeypatch.setattr(feed, "PAGE_SIZE", 2)
    await set_place(fleet.store, [SHUTTLE.device_id], Place("hull", "presses"))
    wanted = webhook(hook, secret, events=["verdicts"], sites=["hull"], groups=["presses"])
    (sink,) = settings_of(wanted).sinks
    old = await fleet.send(SHUTTLE, odd=True, at_s=time.time() - 3600)
    assert not await feed_verdicts(fleet.store, sink)  # it begins here
    sent = [await fleet.send(kind, odd=odd) for kind in (SHUTTLE, CAMERA) for odd in (True, False, True)]
    while await feed_verdicts(fleet.store, sink, time.time() + 60):
        pass
    await send_all(center_of(fleet, settings_of(wanted)))
    found = {body["sample_id"] for body in hook.bodies}
    assert found == {str(item.sample_id) for item in (sent[0], sent[2])}
    assert str(old.sample_id) not in found
    assert {(body["event"], body["site"], body["decision"]) for body in hook.bodies} == {
        ("verdict", "hull", "anomalous")
    }
    assert not await feed_verdicts(fleet.store, sink, time.time() + 60)  # each once
    await fleet.send(SHUTTLE, odd=True)
    await center_of(fleet, settings_of()).check()  # without the sink
    for _ in range(2):
        assert not await feed_verdicts(fleet.store, sink, time.time() + 60)  # it begins again here
    assert await due(fleet.store, "hook", time.time(), 1) == []


async def test_the_outbox_is_bounded_in_number_and_age(fleet, monkeypatch):
    monkeypatch.setattr("cloud.store.outbox.MAX_WAITING", 3)
    async with fleet.store.writing() as connection:
        for number in range(5):
            await add_deliveries(connection, ["hook", "gone"], {"number": number})
    assert await drop_old(fleet.store, ["hook"], 0.0) == 7
    async with fleet.store.reading() as connection:
        left = (await connection.execute(select(deliveries.c.message))).scalars().all()
    assert [item["number"] for item in left] == [2, 3, 4]
    assert await drop_old(fleet.store, ["hook"], time.time() + 1) == 3


def test_a_secret_that_is_missing_or_short_is_refused_at_the_start(hook, tmp_path):
    short = tmp_path / "short"
    short.write_text("abc")
    for path in (tmp_path / "absent", short):
        with pytest.raises(DataError, match="hook"):
            open_sink(settings_of(webhook(hook, path)).sinks[0])


def test_the_command_tests_each_sink(hook, secret, mail, tmp_path):
    lines = [
        f'data_dir = "{tmp_path}"',
        f'[[notices.sinks]]\nid = "hook"\nkind = "webhook"\nurl = "{hook.url}"\nsecret_file = "{secret}"',
        f'[[notices.sinks]]\nid = "mail"\nkind = "email"\nhost = "127.0.0.1"\nport = {mail.port}\nsecurity = "none"',
        f'sender = "{ADDRESSES["sender"]}"\nrecipients = ["ada@plant.example"]',
    ]
    config, out = tmp_path / "cloud.toml", tmp_path / "out.json"
    config.write_text("\n".join(lines))
    CloudSettings.load(config)

    def run() -> dict:
        CliRunner().invoke(
            build("cloud").root, ["cloud", "notices", "test", "--config", str(config), "--json", str(out)]
        )
        return json.loads(out.read_bytes())

    assert run() == {"sinks": {"hook": "", "mail": ""}}
    assert hook.bodies[0]["event"] == "test"
    assert mail.mails[0]["Subject"] == "[vedette] test: Test message to the sink hook.".replace("hook", "mail")
    hook.status = 500
    assert "hook" in run()["error"]
    assert len(mail.mails) == 2
    with pytest.raises(NotDeliveredError):
        open_sink(CloudSettings.load(config).notices.sinks[0]).send({"delivery_id": "1"})


async def test_a_halted_rollout_is_a_notice_until_another_one_begins(fleet):
    store, told = fleet.store, {"author": "ada", "reason": "", "now_s": time.time()}
    entry = await fleet.registry.publish(sign(manifest(SHUTTLE, 2), {"edge/note.json": b"2"}, KEY), make_current=False)
    stages = [Stage(name="wave 100 %", percent=100)]
    await begin(store, "shuttle", entry.bundle_id, stages, **told)
    async with store.writing() as connection:
        (rollout,) = await active_rollouts(connection)
        why = told | {"reason": "60.0 % of the samples are alarms."}
        await change(connection, "service", rollout, RolloutEvent.FAILED, **why, samples=0)
    center = center_of(fleet, settings_of())
    await center.check()
    async with store.reading() as connection:
        (notice,) = await notice_page(connection, NoticeFilter(kind="rollout_halted"))
    assert (notice.subject, notice.closed_at_s) == (entry.bundle_id, None)
    assert notice.text.endswith("was halted: 60.0 % of the samples are alarms.")
    await begin(store, "shuttle", entry.bundle_id, stages, **told)
    await center.check()
    assert await listed(fleet, kind="rollout_halted") == [("rollout_halted", entry.bundle_id, False)]

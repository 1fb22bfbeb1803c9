"""Every change of state is in the log, in the transaction of the change, and stays there."""

import time
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, select, update

from cloud.rollouts.phases import RolloutEvent
from cloud.rollouts.stages import Stage
from cloud.store import Store, audit, comparisons
from cloud.store.account_links import LinkPurpose, add_link
from cloud.store.api_tokens import Scope, add_api_token, revoke_api_token
from cloud.store.audit import AuditAction, AuditEntry, AuditFilter, audit_page
from cloud.store.certificates import adopt_certificate, offer_certificate
from cloud.store.defect_classes import add_class, remove_class, rename_class
from cloud.store.fleet import (
    Place,
    add_tokens,
    delete_token,
    revoke,
    set_place,
    set_title,
    spend_token,
    token_id_of,
)
from cloud.store.group_settings import change_settings
from cloud.store.groups import make_group, remove_group, rename_group
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.live_views import note_live_view
from cloud.store.missed_reports import NewReport, report_miss, withdraw_report
from cloud.store.registry import Registry
from cloud.store.releases import release
from cloud.store.removal import begin_removal, delete_data
from cloud.store.review.builder import build_items
from cloud.store.review.decisions import Decider, NewDecision, decide, undo
from cloud.store.review.mutes import NewMute, end_mute, make_mute, resume_mute
from cloud.store.review.muting import MuteScope
from cloud.store.rollouts import begin, command
from cloud.store.schema import audit_log, devices
from cloud.store.sessions import NewSession, end_sessions, start_session
from cloud.store.share_links import add_share, note_opened, revoke_share
from cloud.store.training_jobs import NewJob, add_job, cancel_job, note_published, note_upload, remove_job
from cloud.store.users import add_user, change_password, set_disabled, set_role
from cloud.store.webhooks import NewWebhook, add_webhook, remove_webhook
from cloud.user_roles import UserRole
from shared.bundle import sign
from shared.errors import SettingsError, StorageError
from shared.group_settings import GroupSettings
from shared.key_sets import TrustedKey
from tests.cloud.console.filled_store import KEY, SHUTTLE, manifest
from tests.cloud.store.review.judged import Judged, judge

ASKED = comparisons.AskedSamples(comparisons.SampleChoice.NEWEST, 10)


async def entries(store: Store, **wanted: object) -> list[AuditEntry]:
    async with store.reading() as connection:
        return list(await audit_page(connection, AuditFilter(**wanted), size=100))[::-1]


async def change_everything(store: Store, folder, add) -> Registry:
    """Make a change of each kind."""
    await add_tokens(store, {"secret": "press-07"}, time.time() + 60)
    async with store.writing() as connection:
        await spend_token(connection, "secret", "1f", 9e9, time.time())
    await revoke(store, "press-07")
    registry = Registry(store, folder, KEY.public_key())
    for version in (1, 2):
        bundle = sign(manifest(SHUTTLE, version), {"edge/note.json": b"{}"}, KEY)
        await registry.publish(bundle)
        await registry.publish(bundle)  # changes nothing
    await registry.rollback("shuttle")
    staged = (await registry.versions("shuttle"))[0].bundle_id
    told = {"author": "ada", "reason": "", "now_s": time.time()}
    await begin(store, "shuttle", staged, [Stage(name="wave 100 %", percent=100)], **told)
    await command(store, "shuttle", RolloutEvent.BACK, **told)
    pair = [entry.bundle_id for entry in await registry.versions("shuttle")]
    compared = await comparisons.start(store, *pair, ASKED, actor="api:CI (abc)", now_s=time.time())
    await comparisons.cancel(store, compared.number, actor="api:CI (abc)", now_s=time.time())
    await set_place(store, ["one"], Place(group="presses"))
    await set_title(store, "one", "the first press")
    for _ in range(2):  # the second changes nothing
        await note_live_view(store, "one", "lab", "account:ada", time.time())
    await add_tokens(store, {"unspent": "press-08"}, time.time() + 60)
    assert await delete_token(store, token_id_of("unspent"), time.time())
    await release(store, "shuttle", ["presses"], time.time())
    (root,) = chain = await registry.key_chain.sets("0" * 64)
    both = root.next([*root.content.keys, TrustedKey.of(Ed25519PrivateKey.generate().public_key())], KEY)
    await registry.key_chain.append(chain, both)
    await registry.key_chain.append((*chain, both), both.next(both.content.keys[:1], KEY))
    (sample_id,) = await add()
    await change_verdict(store, uuid.UUID(bytes=sample_id))
    await add_api_token(store, "abc", "secret", name="CI", scopes=[Scope.AUDIT_READ], expires_at_s=9e9)
    await revoke_api_token(store, "abc")
    webhook = await add_webhook(store, NewWebhook("http://hooks.example/", ("anomalous",)), "api:CI (abc)")
    assert webhook is not None
    assert await remove_webhook(store, webhook.webhook_id, "api:CI (abc)")
    await change_settings(store, "presses", GroupSettings(audit_share=0.1))
    await change_settings(store, "presses", GroupSettings(audit_share=0.1))  # changes nothing
    await make_group(store, "moulds")
    await rename_group(store, "moulds", "welds")
    await remove_group(store, "welds")
    await offer_certificate(store, "two", "1", "2", 9e9)
    await adopt_certificate(store, "two", "2")
    assert await delete_data(store, await begin_removal(store, "two", keep_verdicts=False), service_runs=False)
    await change_accounts(store)
    await change_training(store)
    return registry


async def change_training(store: Store) -> None:
    """Make a change of each kind to uploads and training jobs."""
    await note_upload(store, "a1", "account:ada")
    await note_upload(store, "a1", "account:ada", removed=True)
    job = await add_job(store, NewJob({}, {"name": "press"}), "account:ada")
    await note_published(store, job.job_id, {"bundle_id": "press-1-0"}, "account:ada")
    await cancel_job(store, job.job_id, "account:ada")
    await remove_job(store, job.job_id, "account:ada")


async def change_verdict(store: Store, sample_id: uuid.UUID) -> None:
    """Make a change of each kind to a verdict and to a review item."""
    actor = "api:CI (abc)"
    await add_label(store, sample_id, NewLabel(Label.REAL, "Ada"), actor)
    await judge(store, Judged())
    await build_items(store)
    ada = Decider("ada", actor)
    (made,) = await decide(store, NewDecision(Label.REAL, {1: 0}), ada)
    await undo(store, [made.number], ada)
    await change_classes_and_mutes(store, ada)
    added = await add_share(store, sample_id, 60.0, actor)
    assert added is not None
    await note_opened(store, added[0], "10.0.0.7")
    assert await revoke_share(store, sample_id, added[0].share_id, actor)


async def change_classes_and_mutes(store: Store, ada: Decider) -> None:
    """Make a change of each kind to defect classes, reported misses and mutes."""
    scratch, _ = await add_class(store, "scratch", ada.actor)
    await rename_class(store, scratch.number, "dent", ada.actor)
    await remove_class(store, scratch.number, ada.actor)
    report, _ = await report_miss(store, NewReport(None, "one", "lab", 1.0, 2.0), ada)
    await withdraw_report(store, report.number, ada)
    await judge(store, Judged(5000, contributions=(("speed", 1.0),)))
    await build_items(store)
    await decide(store, NewDecision(Label.FALSE_ALARM, {2: 0}), ada)
    mute = await make_mute(store, NewMute(2, MuteScope.SOURCE), ada)
    await end_mute(store, mute.number, ada)
    await resume_mute(store, mute.number, ada)


async def change_accounts(store: Store) -> None:
    """Make a change of each kind to an account."""
    await add_link(store, "secret-link", LinkPurpose.FIRST_ADMIN, valid_s=60)
    new = NewSession("secret-cookie", "abc", "ada", "password", "10.0.0.7", "a browser", 100.0, 100.0)
    async with store.writing() as connection:
        await add_user(connection, "ada", UserRole.ADMIN, actor=store.actor)
        await change_password(connection, "ada", "secret-hash", actor=store.actor)
        await start_session(connection, new)
    await end_sessions(store, "ada", actor=store.actor)
    await set_role(store, "ada", UserRole.VIEWER)
    for disabled in (True, True, False):  # the second changes nothing
        await set_disabled(store, "ada", disabled=disabled)


async def test_each_change_leaves_an_entry_with_its_actor(store, tmp_path, add) -> None:
    await change_everything(store, tmp_path, add)
    found = await entries(store)
    assert {entry.action for entry in found} == set(AuditAction)
    assert [entry.number for entry in found] == sorted(entry.number for entry in found)
    assert {entry.actor for entry in found} == {
        audit.local_actor(),
        "device:press-07",
        "device:two",
        "api:CI (abc)",
        "account:ada",
        "share",
    }
    assert [entry.subject for entry in found][:3] == ["press-07"] * 3
    published = [entry for entry in found if entry.action == AuditAction.BUNDLE_PUBLISHED]
    current = [entry for entry in found if entry.action == AuditAction.BUNDLE_CURRENT]
    assert len(published) == len(current) == 2
    assert [entry.details["before"] for entry in current] == [None, published[0].subject]
    assert "secret" not in str([entry.details for entry in found])


async def test_filters_and_pages_find_entries(store, tmp_path, add) -> None:
    await change_everything(store, tmp_path, add)
    assert [entry.action for entry in await entries(store, actor="device:press-07")] == ["device.enrolled"]
    assert len(await entries(store, subject="press-07")) == 3
    assert len(await entries(store, action="key.added")) == 1
    everything = await entries(store)
    since_s = everything[3].at_s
    assert await entries(store, since_s=since_s) == [entry for entry in everything if entry.at_s >= since_s]
    assert await entries(store, until_s=since_s) == [entry for entry in everything if entry.at_s < since_s]
    async with store.reading() as connection:
        first = await audit_page(connection, AuditFilter(), size=4)
        rest = await audit_page(connection, AuditFilter(), before=first[-1].number, size=100)
    assert [*first, *rest] == everything[::-1]


async def test_an_entry_of_a_clock_that_was_set_back_hides_no_look(store) -> None:
    now_s = time.time()
    for at_s in (now_s, now_s + 50, now_s - 3600):
        await note_live_view(store, "one", "lab", "account:ada", at_s)
    assert len(await entries(store, action="device.viewed")) == 2  # the last is an hour before the first


async def test_entries_cannot_be_changed_or_removed(store) -> None:
    await add_tokens(store, {"secret": "press-07"}, time.time() + 60)
    for statement in (update(audit_log).values(actor="nobody"), delete(audit_log)):
        with pytest.raises(StorageError, match="append-only"):
            async with store.writing() as connection:
                await connection.execute(statement)
    assert [entry.actor for entry in await entries(store)] == [audit.local_actor()]


async def test_a_change_that_fails_leaves_no_entry(store) -> None:
    with pytest.raises(SettingsError):
        await revoke(store, "nobody")
    async with store.writing() as connection:  # the log refuses: the change is undone too
        await connection.exec_driver_sql("DROP TABLE audit_log")
    with pytest.raises(StorageError):
        await revoke(store, "one")
    async with store.reading() as connection:
        query = select(devices.c.revoked_at_s).where(devices.c.device_id == "one")
        assert (await connection.execute(query)).scalar_one() is None

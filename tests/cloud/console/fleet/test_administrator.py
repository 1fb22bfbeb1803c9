"""An administrator in Chromium, with a real service: thresholds, moves and invitations."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert

from cloud.accounts.requests import SESSION_COOKIE
from cloud.store.fleet import Place, set_place, store_heartbeat
from cloud.store.group_settings import change_settings
from cloud.store.schema import replay_budgets, replay_days
from cloud.thresholds.cells import BINS, ROUTES, bins_of, empty_bank, pack_bank, pack_histogram
from cloud.user_roles import UserRole
from shared.group_settings import GroupSettings
from shared.status import Heartbeat
from tests.accounts import sign_in
from tests.cloud.console.browsing import wait_until
from tests.cloud.console.filled_store import add_devices
from tests.cloud.console.served_service import PASSWORD, ServedService
from tests.cloud.service.harness import Running
from tests.cloud.store.test_replay import beats
from tests.cloud.thresholds.simulated import Simulated


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[ServedService]:
    service = ServedService(tmp_path_factory.mktemp("service"))
    yield service
    service.stop()


@pytest.fixture
def page(served: ServedService, browser: Any) -> Iterator[Any]:
    """A tab of an administrator; at the end no script may have failed in it."""
    facts = served.do(sign_in(served.cloud.service.store, UserRole.ADMIN, "ada"))
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": SESSION_COOKIE, "value": facts.secret, "url": served.url}])
    page = context.new_page()
    page.set_default_timeout(15_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert problems == []


async def replayed(cloud: Running) -> None:
    """Two devices of the group presses with counted p-values and heartbeats."""
    store = cloud.service.store
    await add_devices(store, "gauge-1", "gauge-2")
    await set_place(store, ["gauge-1", "gauge-2"], Place("hull", "presses"))
    simulated = Simulated(rate_per_s=0.02, false_alarms_per_day=2.0, odd=30)
    histogram = np.zeros((len(ROUTES) * BINS, 3), np.int64)
    sent = np.flatnonzero(simulated.routes)
    np.add.at(histogram, simulated.routes[sent] * BINS + bins_of(simulated.p_values[sent]), (1, 0, 1000))
    bank = empty_bank() + np.array([len(sent), 0, 1000 * len(sent)])
    for device_id in ("gauge-1", "gauge-2"):
        await beats(store, device_id, rate_per_s=0.02)
        await store_heartbeat(store, device_id, Heartbeat(settings=GroupSettings(false_alarms_per_day=2.0)))
        async with store.writing() as connection:
            day = {"device_id": device_id, "day": int(time.time() // 86_400)}
            cells = {"source_id": "line", "cells": pack_histogram(histogram)}
            await connection.execute(insert(replay_days).values(day | cells))
            await connection.execute(insert(replay_budgets).values(day | {"cells": pack_bank(bank)}))


def test_a_threshold_is_moved_applied_and_taken_back(served: ServedService, page: Any) -> None:
    served.do(replayed(served.cloud))
    page.goto(f"{served.url}/groups")
    page.click("a:has-text('presses')")
    page.wait_for_selector("[data-sentences]:has-text('Exact')")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if "forecast" in request.url else None)
    now = page.inner_text("[data-before=alarms_per_day]")
    page.focus("[data-slider=alarms]")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")  # stricter, by 0.4 decades
    assert page.input_value("[name=false_alarms_per_day]") == "0.794"
    wait_until(page, lambda: len(requests) == 1, "one request for twenty steps")
    assert page.inner_text("[data-proposed=alarms_per_day]") != now
    for _ in range(3):
        page.keyboard.press("End")
    page.wait_for_selector("[data-sentences]:has-text('Estimate')")
    page.fill("[name=false_alarms_per_day]", "0.5")
    served.do(change_settings(served.cloud.service.store, "presses", GroupSettings(audit_share=0.05)))
    page.click("text=Apply to 2 devices")
    page.wait_for_selector(".v-settings .v-failed:has-text('changed meanwhile')")
    page.click("[data-again]")
    page.wait_for_selector("[data-sentences]:has-text('Exact')")
    assert page.input_value("[name=audit_share]") == "0.05"
    page.fill("[name=false_alarms_per_day]", "0.5")
    page.click("text=Apply to 2 devices")
    page.wait_for_selector("td:has-text('as in edge.toml → 0.5')")
    assert "items a day" in page.inner_text("section[aria-labelledby=changes-title]")
    page.click("form[data-address$=undo] button")
    page.wait_for_selector("td:has-text('takes a change back')")
    assert page.input_value("[name=false_alarms_per_day]") == ""
    page.goto(f"{served.url}/group/nobody")
    page.wait_for_selector("h1:has-text('Group not found')")


def test_devices_are_chosen_by_a_range_moved_and_taken_back(served: ServedService, page: Any) -> None:
    names = ["move-1", "move-2", "move-3"]
    served.do(add_devices(served.cloud.service.store, *names))
    page.goto(f"{served.url}/devices?text=move&sort=device")
    page.click("[data-device=move-1]")
    page.click("[data-device=move-3]", modifiers=["Shift"])
    assert page.inner_text("[data-count]") == "3 devices chosen"
    page.click("text=Choose none")
    page.click("[data-device=move-2]")
    page.click("text=Choose all 3 that match")
    page.fill(".v-moves [name=group]", "movers")
    page.click(".v-moves [type=submit]")
    page.wait_for_selector("[data-said]:has-text('3 devices moved.')")
    page.wait_for_selector("td.c-place:has-text('movers')")
    page.click("[data-undo]")
    page.wait_for_selector("[data-said]:has-text('3 devices moved back.')")
    page.goto(f"{served.url}/groups")
    assert "movers" not in page.inner_text("main")


def test_a_person_is_invited_and_chooses_a_password(served: ServedService, page: Any, browser: Any) -> None:
    page.goto(f"{served.url}/system/users")
    page.fill(".v-form [name=name]", "grace")
    page.select_option(".v-form [name=role]", "operator")
    page.fill(".v-form [name=sites]", "hull, harbour")
    page.click("text=Invite >> nth=-1")
    link = page.locator(".v-secret:not([hidden]) [data-secret=link]").inner_text()
    other = browser.new_context()
    guest = other.new_page()
    guest.goto(link)
    for field in ("password", "again"):
        guest.fill(f"#{field}", PASSWORD)
    guest.keyboard.press("Enter")
    guest.wait_for_selector(".v-person")
    assert guest.inner_text(".v-person .v-cut") == "grace"
    assert guest.locator(".v-nav a").all_inner_texts()[-1] != "System", "it is about all sites"
    page.reload()
    page.click("[aria-label='Disable grace']")
    page.click("#disable button[type=submit]")
    page.wait_for_selector("tr:has-text('grace') >> text=disabled")
    for _ in range(10):  # within a second
        if guest.goto(served.url).url.endswith("/sign-in"):
            break
        guest.wait_for_timeout(200)
    assert guest.url.endswith("/sign-in")
    other.close()
    page.fill(".v-form [name=name]", "grace")
    page.click("text=Invite >> nth=-1")
    page.wait_for_selector(".v-failed:has-text('exists already')")

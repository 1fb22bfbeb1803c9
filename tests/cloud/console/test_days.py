"""The day of each role in one browser, from the sign-in on, with a real service, its analysis and enrolled devices.

An administrator's day with a training is tests/cloud/console/training/test_training_page.py.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any

import grpc
import pytest

from cloud.accounts.access_table import ROUTES
from cloud.store.labels import Label
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, StoredItem, item_page
from cloud.user_roles import UserRole
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from shared.wire import sample_to_message
from tests.cloud.conftest import Biopsies
from tests.cloud.console.browsing import wait_for, wait_until
from tests.cloud.console.pages import is_page
from tests.cloud.console.served_service import Person, ServedService
from tests.cloud.service.agents import Agent
from tests.cloud.service.harness import DeviceClient, enrol, message
from vedette.v1 import detection_pb2, sample_pb2

CHOSEN = "document.querySelector('.r-row.r-chosen')?.dataset.item"
NONE_WAITS = "!document.querySelector('.r-row.r-waiting')"  # for its decision to be stored
TAB_LEFT = ".r-tab[aria-current] b"
DECISIONS = {"f": (Label.FALSE_ALARM, ""), "u": (Label.UNSURE, ""), "r": (Label.REAL, "")}
DECISIONS["Shift+Digit1"] = (Label.REAL, "tear")
APART_S = 100.0  # of two samples, so that each is an item of its own

SignIn = Callable[[str, UserRole], Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, biopsies: Biopsies, browser: Any) -> Iterator[ServedService]:
    """A service with a current bundle that judges."""
    service = ServedService(
        tmp_path_factory.mktemp("days"), biopsies.key, rollouts={"check_every_s": 0.1}, heartbeat_s=60
    )
    service.do(service.cloud.service.registry.publish(biopsies.bundle))
    yield service
    service.stop()


@pytest.fixture
def sign_in(served: ServedService, browser: Any) -> Iterator[SignIn]:
    """Open the console as a new person of a role; at the end nothing may have failed in the browser."""
    people: list[Person] = []

    def enter(name: str, role: UserRole) -> Any:
        people.append(Person(served, browser, name, role))
        return people[-1].page

    yield enter
    problems = [problem for person in people for problem in person.tabs.problems]
    for person in people:
        person.context.close()
    assert problems == []


def alarms(biopsies: Biopsies, count: int, end_s: float) -> list[sample_pb2.Sample]:
    """Malignant biopsies as alarms of a device, the last one captured at `end_s`."""
    screening = Screening(9.0, 1e-5, False, Route.ALARM, biopsies.bundle.manifest.bundle_id, "none", "fp32_onnxruntime")
    return [
        sample_to_message(
            Sample(new_sample_id(), "lab", Modality.TABULAR, end_s - APART_S * place, f"rows.csv:{place + 1}", values),
            screening,
        )
        for place, values in enumerate(biopsies.anomalous[:count])
    ]


def items(served: ServedService, device_id: str) -> list[StoredItem]:
    """Return all items of a device, the newest first."""

    async def read() -> list[StoredItem]:
        wanted = ItemFilter(state=ItemState.ALL, device_id=device_id)
        async with served.cloud.service.store.reading() as connection:
            return list((await item_page(connection, wanted, ItemOrder.NEWEST, size=200)).items)

    found: list[StoredItem] = served.do(read())
    return found


def decisions(served: ServedService, device_id: str) -> list[tuple[Label | None, str]]:
    return [(item.decision, item.defect_class) for item in items(served, device_id)]


def test_an_operator_triages_fifty_items_by_keyboard_alone(
    served: ServedService, biopsies: Biopsies, sign_in: SignIn
) -> None:
    device = served.do(served.cloud.device("scanner"))
    page = sign_in("ada", UserRole.OPERATOR)
    page.goto(f"{served.url}/?device=scanner")
    page.wait_for_selector(".v-empty")
    served.do(device.submit(alarms(biopsies, 90, time.time())))
    judged = served.do(device.verdicts(90))
    count = sum(verdict.decision == sample_pb2.DECISION_ANOMALOUS for verdict in judged.values())
    assert count > 52
    wait_until(page, lambda: page.inner_text(TAB_LEFT) == str(count), "not all items arrived in the open page")
    page.evaluate("document.querySelector('.r-work').dataset.old = 'yes'")
    page.keyboard.press("g")
    page.wait_for_selector(".r-work:not([data-old])")
    assert page.locator(".r-row").count() == 50

    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-why .v-facts")
    first = page.evaluate(CHOSEN)
    page.keyboard.press("c")  # a class that nobody has named yet
    page.wait_for_selector(".r-class-name:focus")
    page.keyboard.type("tear")
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-effects:has-text('1 labelled samples of bundle biopsy'):has-text('tear 1')")
    wait_until(page, lambda: page.evaluate(CHOSEN) != first, "the next item was not chosen")
    wanted = [(Label.REAL, "tear")]
    for key in islice(cycle(DECISIONS), 49):  # one key an item
        wait_for(page, NONE_WAITS)
        before = page.evaluate(CHOSEN)
        page.keyboard.press(key)
        wanted.append(DECISIONS[key])
        wait_until(page, lambda before=before: page.evaluate(CHOSEN) != before, "the next item was not chosen")
    wanted += [(None, "")] * (count - 50)
    wait_for(page, NONE_WAITS)
    assert decisions(served, "scanner") == wanted
    wait_until(page, lambda: page.inner_text(TAB_LEFT) == str(count - 50), "the tab counts what is left")
    page.wait_for_selector(".r-effects:has-text('50 labelled samples of bundle biopsy')")

    page.reload()
    wait_until(page, lambda: page.locator(".r-row").count() == count - 50, "the list shows what is left")
    wait_for(page, "document.documentElement.dataset.live")
    last = items(served, "scanner")[49]
    page.keyboard.press("z")
    page.wait_for_selector(f".r-row[data-item='{last.number}']")
    wanted[49] = (None, "")
    wait_until(page, lambda: decisions(served, "scanner") == wanted, "the last decision is not undone")
    wait_until(page, lambda: page.inner_text(TAB_LEFT) == str(count - 49), "the tab counts it again")


def test_an_administrator_sees_a_rollout_halt_and_shuts_a_device_out(
    served: ServedService, biopsies: Biopsies, sign_in: SignIn
) -> None:
    registry = served.cloud.service.registry
    old = biopsies.bundle.manifest.bundle_id
    new = served.do(registry.publish(biopsies.version(2), make_current=False)).bundle_id

    async def enrolled() -> list[Agent]:
        names = [f"gauge-{number}" for number in range(3)]
        return [Agent(await served.cloud.device(name), old, floods={new}) for name in names]

    agents = served.do(enrolled())
    page = sign_in("root", UserRole.ADMIN)

    def beat_until(is_reached: Callable[[], bool], what: str) -> None:
        async def beat() -> None:
            await asyncio.gather(*(agent.beat() for agent in agents))

        def beat_and_look() -> bool:
            served.do(beat())
            return is_reached()

        wait_until(page, beat_and_look, what)

    page.goto(f"{served.url}/models/new-rollout?bundle={new}")
    page.select_option("[data-trial]", "devices")
    page.fill("[data-trial-devices]", "gauge-0")
    wanted = {"waves": "100", "stage_s": "0", "stage_samples": "100000", "reason": "<b>new</b> lamp"}
    for field, value in wanted.items():
        page.fill(f"[name={field}]", value)
    page.click("text=Start the rollout >> nth=-1")
    page.wait_for_url("**/models/rollouts/*")
    beat_until(lambda: page.locator(".v-gates li:has-text('Forwarded samples')").count() > 0, "no gate is shown")
    beat_until(lambda: page.locator(".v-halted").count() > 0, "the page does not show that the rollout was halted")
    assert "of the samples were forwarded" in page.inner_text(".v-halted")
    assert page.locator("[data-opens=pause]").count() == 0
    assert "<b>new</b> lamp" in page.inner_text(".v-happened")
    beat_until(lambda: agents[0].bundle_id == old, "the device did not go back")
    assert agents[0].fetched == [new, old]
    assert agents[1].fetched == []

    page.goto(f"{served.url}/enrolment")
    page.fill("[name=device_id]", "press-07")
    page.fill("[name=site]", "hull")
    page.click("text=Make a token")
    command = page.locator(".v-token:not([hidden]) [data-token=command]").inner_text()
    assert page.get_attribute(".v-qr svg", "aria-label") == "QR code of the command that enrols press-07"
    device = served.do(enrol(command.split("--token ")[1].strip()))
    served.cloud.devices.append(device)
    assert served.do(submit(device, biopsies)) is grpc.StatusCode.OK

    page.goto(f"{served.url}/devices")
    page.click("text=press-07")
    page.wait_for_url("**/device/press-07")
    assert "site hull" in page.inner_text(".v-device-page")
    page.click("text=Rename")
    page.fill("#rename [name=title]", "Press <b>seven")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:text-is('Press <b>seven')")
    page.click("text=Revoke")
    page.click("#revoke >> text=Cancel")
    assert served.do(submit(device, biopsies)) is grpc.StatusCode.OK, "a cancelled question changes nothing"
    page.click("text=Revoke")
    page.click("#revoke button[type=submit]")
    page.wait_for_selector("text=The certificate is revoked")
    refused = grpc.StatusCode.PERMISSION_DENIED
    wait_until(page, lambda: served.do(submit(device, biopsies)) is refused, "the device still has access")

    page.click("text=Remove")
    page.fill("[name=confirmed]", "press-70")
    page.click("#remove button[type=submit]")
    assert page.evaluate("document.querySelector('[name=confirmed]').validationMessage") == "Type press-07"
    page.fill("[name=confirmed]", "press-07")
    page.click("#remove button[type=submit]")
    page.wait_for_url("**/devices")
    page.goto(f"{served.url}/system/audit?subject=press-07")
    assert page.locator("td.c-action").all_inner_texts()[-1] == "token.made"
    assert "account:root" in page.inner_text(".v-audit-table")


async def submit(device: DeviceClient, biopsies: Biopsies) -> grpc.StatusCode:
    """Return the status of a request with one sample, which is taken if it is OK."""
    sample = message(biopsies.normal[0], bundle_id=biopsies.bundle.manifest.bundle_id)
    try:
        (result,) = await device.submit([sample])
    except grpc.aio.AioRpcError as error:
        return error.code()
    assert result.status == detection_pb2.SUBMIT_STATUS_ACCEPTED, result.reason
    return grpc.StatusCode.OK


def test_a_viewer_sees_the_pages_and_changes_nothing(
    served: ServedService, biopsies: Biopsies, sign_in: SignIn
) -> None:
    device = served.do(served.cloud.device("seen-only"))
    served.do(device.submit(alarms(biopsies, 3, time.time())))
    page = sign_in("vic", UserRole.VIEWER)
    wait_until(page, lambda: len(items(served, "seen-only")) > 1, "the samples became no items")
    page.goto(f"{served.url}/?device=seen-only")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-panel .r-decide")
    assert page.locator(".r-panel [data-decide]").count() == 0
    left = int(page.inner_text(TAB_LEFT))
    page.keyboard.press("r")
    page.keyboard.press("e")
    wait_until(page, lambda: page.inner_text(TAB_LEFT) == str(left - 1), "the item is not marked")
    assert {item.decision for item in items(served, "seen-only")} == {None}

    for route in filter(is_page, ROUTES):
        if "{" in route.path:
            continue
        answer = page.goto(served.url + route.path)
        assert answer.status == (200 if route.role is UserRole.VIEWER else 403), route.path
        if answer.status == 200:
            page.wait_for_selector("h1")
            assert page.locator("[data-admin]:visible, [data-operator]:visible").count() == 0, route.path
    page.goto(f"{served.url}/device/seen-only")
    page.wait_for_selector(".v-device-page")
    assert page.locator("[data-admin]:visible, [data-operator]:visible").count() == 0
    body = {"items": [{"item": items(served, "seen-only")[0].number, "seen": 0}], "decision": "real"}
    assert page.evaluate(SEND, ["/api/v1/review/decisions", body]) == 403
    assert page.evaluate(SEND, ["/api/v1/devices/seen-only/revocation", {}]) == 403


SEND = """async ([path, body]) => {
    const { csrf_token } = await (await fetch("/api/account")).json();
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf_token };
    return (await fetch(path, { method: "POST", headers, body: JSON.stringify(body) })).status;
}"""

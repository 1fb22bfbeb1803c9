"""An administrator's day in a real browser, with a real service: enrol, rename, revoke, remove, invite."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from axe_playwright_python.sync_playwright import Axe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.accounts.requests import SESSION_COOKIE
from cloud.service.main import _make_console
from cloud.user_roles import UserRole
from tests.accounts import CHEAP, sign_in
from tests.cloud.console.browsing import wait_until
from tests.cloud.service.harness import DeviceClient, Running, enrol, running, settings_for
from vedette.v1 import fleet_pb2

PASSWORD = "correct horse battery"


class ServedService:
    """A whole service in a thread; `do` runs a coroutine in its event loop."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.key, self._settings = Ed25519PrivateKey.generate(), settings
        self.loop = asyncio.new_event_loop()
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._serve(folder)), daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the service did not start"

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    async def _serve(self, folder: Path) -> None:
        settings = settings_for(folder, accounts=CHEAP, **self._settings)
        async with running(settings, self.key, make_console=_make_console) as self.cloud:
            self._ready.set()
            await self._end.wait()

    @property
    def url(self) -> str:
        return self.cloud.service.addresses.console_url.rstrip("/")


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


async def beat(device: DeviceClient, cloud: Running) -> grpc.StatusCode:
    """Status of a heartbeat."""
    cloud.devices.append(device)
    with contextlib.suppress(grpc.aio.AioRpcError):
        await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest(agent_version="0.1.0"), timeout=10)
        return grpc.StatusCode.OK
    return grpc.StatusCode.PERMISSION_DENIED


def test_a_device_is_enrolled_renamed_revoked_and_removed_by_its_pages(served: ServedService, page: Any) -> None:
    page.goto(f"{served.url}/enrolment")
    page.fill("[name=device_id]", "press-07")
    page.fill("[name=site]", "hull")
    page.click("text=Make a token")
    command = page.locator(".v-token:not([hidden]) [data-token=command]").inner_text()
    assert page.get_attribute(".v-qr svg", "aria-label") == "QR code of the command that enrols press-07"
    token = command.split("--token ")[1].strip()
    device = served.do(enrol(token))
    assert served.do(beat(device, served.cloud)) is grpc.StatusCode.OK

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
    assert served.do(beat(device, served.cloud)) is grpc.StatusCode.OK, "a cancelled question changes nothing"
    page.click("text=Revoke")
    page.click("#revoke button[type=submit]")
    page.wait_for_selector("text=The certificate is revoked")

    def is_refused() -> bool:
        return served.do(beat(device, served.cloud)) is not grpc.StatusCode.OK

    wait_until(page, is_refused, "the device still has access")

    page.click("text=Remove")
    page.fill("[name=confirmed]", "press-70")
    page.click("#remove button[type=submit]")
    assert page.evaluate("document.querySelector('[name=confirmed]').validationMessage") == "Type press-07"
    page.fill("[name=confirmed]", "press-07")
    page.click("#remove button[type=submit]")
    page.wait_for_url("**/devices")
    assert "No device is enrolled yet" in page.inner_text("main")
    page.goto(f"{served.url}/system/audit?subject=press-07")
    assert page.locator("td.c-action").all_inner_texts()[-1] == "token.made"
    assert "account:ada" in page.inner_text(".v-audit-table")


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


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_and_nothing_is_too_wide(served: ServedService, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    found = []
    parts = ("", "/audit", "/users", "/tokens", "/settings")
    for path in ("/notices", "/enrolment", *(f"/system{part}" for part in parts)):
        page.goto(served.url + path)
        page.wait_for_selector("main nav")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.locator("h1").count() == 1, path
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            results = Axe().run(page, options={"resultTypes": ["violations"]}).response
            found += [
                (path, scheme, rule["id"], rule["nodes"][0]["html"][:200])
                for rule in results["violations"]
                if rule["impact"] in ("serious", "critical")
            ]
    assert found == []

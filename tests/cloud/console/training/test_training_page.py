"""Training from the page in Chromium: upload, progress, report, and publication to a trial."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error

from cloud.accounts.requests import SESSION_COOKIE
from cloud.store.api_tokens import Scope, add_api_token, token_text
from cloud.store.audit import AuditFilter, audit_page
from cloud.store.registry import Registry
from cloud.store.rollouts import newest_rollout
from cloud.user_roles import UserRole
from shared.bundle import sign
from shared.signing_keys import new_signing_key
from tests.accounts import sign_in
from tests.cloud.console.browsing import wait_until
from tests.cloud.console.filled_store import SHUTTLE, manifest
from tests.cloud.console.served_service import ServedService
from tests.cloud.jobs.conftest import press_rows

ENDED = ("done", "failed", "cancelled")


class TrainingService(ServedService):
    """A service that signs what it trains, with an older bundle of the name `press`."""

    async def prepare(self) -> None:
        """Publish the older bundle."""
        old = manifest(SHUTTLE).model_copy(update={"name": "press"})
        await self.cloud.service.registry.publish(sign(old, {"edge/note.json": b"{}"}, self.key))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[TrainingService]:
    folder = tmp_path_factory.mktemp("training")
    key = new_signing_key(folder / "signing.pem")
    training = {"signing_key": folder / "signing.pem", "free_bytes": 0, "cores": 1}
    service = TrainingService(folder, key, training=training)
    yield service
    service.stop()


@pytest.fixture
def page(served: TrainingService, browser: Any) -> Iterator[Any]:
    """A tab of an administrator; at the end no script may have failed in it."""
    facts = served.do(sign_in(served.cloud.service.store, UserRole.ADMIN, "ada"))
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": SESSION_COOKIE, "value": facts.secret, "url": served.url}])
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert problems == []


def test_a_table_is_uploaded_trained_evaluated_and_published_to_a_trial(
    served: TrainingService, page: Any, tmp_path: Path
) -> None:
    path = tmp_path / "Press.csv"
    path.write_bytes(press_rows())
    page.goto(f"{served.url}/models/training")
    page.set_input_files("[data-files] >> nth=0", str(path))
    page.wait_for_selector(".v-found:not([hidden])")
    assert "240 rows of a table: 228 normal, 12 labelled as anomalous." in page.inner_text(".v-found")
    heads = page.eval_on_selector_all(".v-found th", "cells => cells.map(cell => cell.innerText.replace(/\\s+/g, ' '))")
    assert heads == [*(f"{name} input, number" for name in ("force", "flow", "heat", "speed")), "label label, number"]
    assert page.input_value("[name=name]") == "press"
    page.evaluate("document.querySelector('.v-training details').open = true")
    check_axe(page)
    page.select_option("[name=effort]", "first-look")
    page.click("text=Start the training")

    page.wait_for_url("**/models/training/*")
    page.wait_for_selector(".v-job[data-state=running] progress")
    page.wait_for_selector(".v-log >> text=fitting the analyzers begins", timeout=120_000)
    page.wait_for_selector(", ".join(f".v-job[data-state={state}]" for state in ENDED), timeout=240_000)
    shown = page.inner_text(".v-job")
    assert page.get_attribute(".v-job", "data-state") == "done", shown
    assert "Judgement on held-out normal data" in shown
    assert "12 of them anomalous" in shown
    for name in ("isolation forest", "knn", "fused", "cloud only"):
        assert name in shown.lower(), "methods, baselines and routing"
    pictures = page.locator(".v-pictures img")
    pictures.first.scroll_into_view_if_needed()
    wait_until(page, lambda: pictures.first.evaluate("image => image.naturalWidth") > 100, "the first picture")

    check_axe(page)
    page.click("text=Publish to a trial")
    page.fill("#publish-job [name=trial]", "50%")
    page.fill("#publish-job [name=waves]", "100")
    page.click("#publish-job button[type=submit]")
    page.wait_for_selector("text=its rollout begins with the trial")
    rollout = served.do(newest(served))
    assert rollout is not None
    assert (rollout.bundle_name, rollout.stages[0].name, rollout.stages[0].percent) == ("press", "trial", 50.0)
    assert rollout.bundle_id.startswith("press-2-")
    served.do(verified(served.cloud.service.registry, rollout.bundle_id))
    assert served.do(actions(served)) >= {"upload.made", "training.started", "training.published", "bundle.published"}
    page.goto(f"{served.url}/models/training")
    assert "published" in page.inner_text(".v-job-table")


def test_a_second_folder_is_another_upload_and_hidden_files_stay_out(
    served: TrainingService, page: Any, tmp_path: Path
) -> None:
    for name in ("first/a.csv", "first/b.csv", "second/press.csv", "second/.DS_Store", "second/.git/config"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(press_rows())
    uploads = served.cloud.settings.training_folder / "uploads"
    before = set(uploads.glob("*"))
    held: list[Any] = []
    page.route("**/uploads/*/files/first/**", lambda route: held.append(route))
    page.goto(f"{served.url}/models/training")
    page.set_input_files("[data-files] >> nth=1", str(tmp_path / "first"))
    wait_until(page, lambda: len(held) == 2, "the first folder on its way")
    page.set_input_files("[data-files] >> nth=1", str(tmp_path / "second"))
    for route in held:
        with contextlib.suppress(Error):  # it has no page any more
            route.continue_()
    page.wait_for_selector(".v-found:not([hidden])")
    assert page.inner_text(".v-upload").strip() == "2 hidden files are left out."
    assert page.is_hidden(".v-failed")
    (made,) = set(uploads.glob("*")) - before
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*.*")) == [
        "files/second/press.csv",
        "upload.json",
    ]
    page.click("text=Delete the upload")
    wait_until(page, lambda: not made.exists(), "the end of the upload")


def test_a_file_whose_connection_ends_leaves_nothing(served: TrainingService, page: Any) -> None:
    served.do(add_api_token(served.cloud.service.store, "t1", "s", name="CI", scopes=list(Scope), expires_at_s=9e9))
    headers = {"authorization": f"Bearer {token_text('t1', 's')}"}
    with httpx.Client(base_url=f"{served.url}/api/v1/training", headers=headers) as client:
        upload_id = client.post("/uploads").json()["upload_id"]
        folder = served.cloud.settings.training_folder / "uploads" / upload_id
        host, port = str(client.base_url.host), client.base_url.port
        head = f"PUT /api/v1/training/uploads/{upload_id}/files/x.csv HTTP/1.1\r\nHost: {host}:{port}\r\n"
        head += f"Authorization: {headers['authorization']}\r\nContent-Length: 1000000\r\n\r\n"
        with socket.create_connection((host, port)) as connection:
            connection.sendall(head.encode() + b"x" * 300_000)
            wait_until(page, lambda: any(path.stat().st_size for path in folder.glob(".partial-*")), "its first bytes")
        wait_until(page, lambda: not list(folder.glob(".partial-*")), "the end of the file")
        shown = client.get(f"/uploads/{upload_id}").json()
        assert (shown["bytes"], shown["files"]) == (0, 0)
        assert client.delete(f"/uploads/{upload_id}").status_code == 204


def check_axe(page: Any) -> None:
    """Let axe-core find nothing serious, and the page be no wider than a phone."""
    found = Axe().run(page).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('.v-cards').scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 800})


async def newest(served: TrainingService) -> Any:
    async with served.cloud.service.store.reading() as connection:
        return await newest_rollout(connection, "press")


async def verified(registry: Registry, bundle_id: str) -> None:
    entry = await registry.entry(bundle_id)
    assert entry is not None
    await registry.verify(entry)


async def actions(served: TrainingService) -> set[str]:
    """Kinds of changes that the account has made."""
    async with served.cloud.service.store.reading() as connection:
        return {entry.action for entry in await audit_page(connection, AuditFilter(actor="account:ada"))}

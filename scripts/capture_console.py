"""Pictures of every page of the console, light and dark, on a desktop and a phone: python -m scripts.capture_console.

A service runs over the store of `scripts/demo_store.py`. The pages are those of the console's routes, so a new page is
captured without a change here; the address of a page about one thing is the first link to such a page on the others.
Pictures that look as before are kept, and those of pages that are gone are removed.
Needs Chromium and Playwright.
"""

import argparse
import asyncio
import io
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from PIL import Image, ImageChops
from playwright.async_api import Browser, Page, async_playwright

from cloud.accounts.requests import SESSION_COOKIE
from cloud.service.main import _make_console
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.sqlite.store import DATABASE_FILE
from cloud.user_roles import UserRole
from scripts.demo_store import DemoStore
from shared.live_views import live_sample
from shared.signing_keys import new_signing_key
from tests.accounts import CHEAP, sign_in
from tests.cloud.console.filled_store import empty_database
from tests.cloud.service.harness import Running, running
from tests.trained import FOLDER
from vedette.v1 import detection_pb2, fleet_pb2

CAMERA = "camera"  # device of the demo whose newest picture is shown
COLOURS = 256  # of a picture's palette
ALIKE, SEEN_GREY = 0.01, 24  # share of the pixels, and grey levels of 256
MAX_BYTES = 6_000_000  # of all pictures
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SCREENS = {"": {"width": 1280, "height": 800}, "-phone": {"width": 390, "height": 844}}
SCHEMES = ("light", "dark")
HELP = ".v-help"
IS_READ = "!document.querySelector('[data-sentences]')?.textContent.includes('is being read')"
# States of a page worth a picture of their own: name, address, and what to click there.
STATES = (
    ("review-opened", "/?modality=image&state=all", ".r-row .r-facts"),
    ("review-muted", "/?tab=muted", ""),
    ("review-help", "/", HELP),
    ("verdicts-opened", "/verdicts?modality=series&decision=anomalous", "tr[data-sample]"),
    ("verdicts-help", "/verdicts", HELP),
    ("device-live-view", f"/device/{CAMERA}", "[data-opens=live-view]"),
)
OPENED = ".v-paragraph, .v-live-view"  # after such a click
WITHOUT_SIGN_IN = (("sign-in", "/sign-in"),)
ACCOUNT_PAGES = (("account", "/account"),)
LINKS = "[...document.querySelectorAll('a[href]')].map(link => link.getAttribute('href'))"
IS_SHOWN = """document.fonts.status === "loaded" && [...document.querySelectorAll("img:not([hidden])")]
    .filter(image => image.getBoundingClientRect().top < innerHeight && image.loading !== "lazy" || image.complete)
    .every(image => image.complete && image.naturalWidth > 0)"""


@dataclass
class Album:
    """Pictures in a folder, by name; `links` are those seen on the captured pages."""

    folder: Path
    url: str
    links: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    bytes: int = 0

    async def capture(self, browser: Browser, secret: str, views: Iterable[tuple[str, str, str]]) -> None:
        """Capture views (name, path, what to click) on each screen and in each colour scheme."""
        wanted = list(views)
        for suffix, size in SCREENS.items():
            for scheme in SCHEMES:
                options: dict[str, Any] = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
                context = await browser.new_context(
                    **options, is_mobile=suffix == "-phone", has_touch=suffix == "-phone"
                )
                if secret:
                    await context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": self.url}])
                page = await context.new_page()
                for name, path, click in wanted:
                    await self._open(page, path, click)
                    self._save(f"{name}{suffix}-{scheme}.png", await page.screenshot())
                await context.close()

    async def _open(self, page: Page, path: str, click: str) -> None:
        answer = await page.goto(f"{self.url}{path}")
        if answer is None or answer.status != 200:
            self.problems.append(f"{path}: status {answer.status if answer else 'unknown'}")
        if click:
            await page.click(click)
            await page.wait_for_selector("#help[open]" if click == HELP else OPENED)
        await page.wait_for_timeout(400)  # parts that a page fetches after it was shown
        for _ in range(50):  # wait_for_function needs 'unsafe-eval', which the console's policy refuses
            if await page.evaluate(f"{IS_READ} && {IS_SHOWN}"):
                break
            await page.wait_for_timeout(100)
        self.links += [link for link in await page.evaluate(LINKS) if link.startswith("/")]

    def _save(self, name: str, picture: bytes) -> None:
        colours = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        packed = io.BytesIO()
        colours.save(packed, "PNG", optimize=True)
        path, words = self.folder / name, "unchanged"
        self.names.add(name)
        if not path.exists() or not looks_alike(Image.open(path), colours):
            path.write_bytes(packed.getvalue())
            words = "written"
        size = path.stat().st_size
        self.bytes += size
        print(f"{name}  {size / 1000:.0f} kB  {words}", flush=True)


def looks_alike(one: Image.Image, other: Image.Image) -> bool:
    """Return whether two pictures differ in less than ALIKE of their pixels, as by times and ids alone."""
    if one.size != other.size:
        return False
    difference = ImageChops.difference(one.convert("L"), other.convert("L"))
    return sum(difference.histogram()[SEEN_GREY:]) < ALIKE * one.width * one.height


def pages_of(app: Any) -> Iterator[str]:
    """Yield the paths of the routes that answer with a whole page."""
    for route in app.routes:
        is_page = isinstance(route, APIRoute) and route.endpoint.__annotations__.get("return") is HTMLResponse
        if is_page and "GET" in route.methods and not route.path.startswith("/parts/"):
            yield route.path


def name_of(path: str, paths: Collection[str] = ()) -> str:
    """Return the name of a page's pictures: "review", or the fixed words of its path.

    "-one" follows them for a page of one thing where `paths` has the page of all.
    """
    words = [word for word in path.split("/") if word and not word.startswith("{")]
    is_one = "{" in path and f"/{'/'.join(words)}" in paths
    return "-".join([*words, "one"] if is_one else words) or "review"


def link_to(path: str, links: Iterable[str]) -> str | None:
    """Return the first link to a page of this path, which has parameters."""
    pattern = re.compile(re.sub(r"\\\{[^}]+\\\}", "[^/?]+", re.escape(path)) + r"(\?.*)?")
    return next((link for link in links if pattern.fullmatch(link)), None)


async def capture_all(folder: Path, work: Path) -> Album:
    """Fill a store, serve it, and write the pictures of all pages to `folder`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    key = new_signing_key(FOLDER / "pictures.pem")  # of the bundles that an earlier run has trained
    free = {"listen": "127.0.0.1:0", "enrolment_listen": "127.0.0.1:0", "console_listen": "127.0.0.1:0"}
    settings = CloudSettings.model_validate({"data_dir": work / "cloud", "accounts": CHEAP, **free})
    made: list[Any] = []

    def make_console(*parts: Any) -> Any:
        made.append(_make_console(*parts))
        return made[-1]

    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / DATABASE_FILE).write_bytes(empty_database())
    filled = DemoStore(work, settings, key)
    async with open_store(settings.store, actor="service") as store:
        await filled.fill(store)
    async with running(settings, key, make_console=make_console) as cloud:
        beating = asyncio.create_task(_beat(filled, cloud))
        answering = asyncio.create_task(_answer(filled, cloud))
        url = cloud.service.addresses.console_url.rstrip("/")
        secret = (await sign_in(cloud.service.store, UserRole.ADMIN, "ada")).secret
        album = Album(folder, url)
        executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=executable, args=["--headless", "--no-sandbox"])
            await _capture(album, browser, secret, list(pages_of(made[0])))
            await album.capture(browser, "", [("shared", f"/shared/{filled.share_secret}", "")])
            await browser.close()
        beating.cancel()
        answering.cancel()
    return album


async def _capture(album: Album, browser: Browser, secret: str, paths: list[str]) -> None:
    plain = [path for path in paths if "{" not in path]
    await album.capture(browser, secret, [(name_of(path), path, "") for path in plain])
    await album.capture(browser, secret, STATES)
    await album.capture(browser, secret, [(name, path, "") for name, path in ACCOUNT_PAGES])
    await album.capture(browser, "", [(name, path, "") for name, path in WITHOUT_SIGN_IN])
    for path in paths:
        if "{" in path:
            if (link := link_to(path, album.links)) is None:
                album.problems.append(f"{path}: no page links to it; add what it shows to scripts/demo_store.py")
                continue
            await album.capture(browser, secret, [(name_of(path, paths), link, "")])


async def _beat(filled: DemoStore, cloud: Running) -> None:
    """Let the devices report while pictures are taken."""
    while True:
        await filled.beat(cloud.service.store)
        await asyncio.sleep(5)


async def _answer(filled: DemoStore, cloud: Running) -> None:
    """Answer live views of the camera with its newest sample, as its agent does."""
    (newest,) = (replay.newest for replay in filled.replays if replay.device_id == CAMERA)
    device = await cloud.device(CAMERA)
    fleet = device.fleet
    async for event in device.detection.Watch(detection_pb2.WatchRequest(answers_live_views=True)):
        if event.WhichOneof("event") == "live_view_requested" and newest is not None:
            request_id = event.live_view_requested.request_id
            sample = live_sample(replace(newest, captured_at_s=time.time() - 1.0))
            await fleet.AnswerLiveView(fleet_pb2.AnswerLiveViewRequest(request_id=request_id, sample=sample))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images/console"))
    target: Path = parser.parse_args().folder
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vedette-pictures-") as temporary:
        made = asyncio.run(capture_all(target, Path(temporary)))
    for old in target.glob("*.png"):
        if old.name not in made.names:
            old.unlink()
    print(f"{made.bytes / 1e6:.1f} MB in all")
    if made.bytes > MAX_BYTES:
        made.problems.append(f"more than {MAX_BYTES / 1e6:.0f} MB in all")
    if made.problems:
        raise SystemExit("\n".join(made.problems))

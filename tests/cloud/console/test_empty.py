"""A console over an empty store."""

import time
from pathlib import Path
from typing import Any

from tests.cloud.console.conftest import running_console
from tests.cloud.console.filled_store import CAMERA


def test_empty_pages_name_the_next_step(tmp_path: Path, browser: Any) -> None:
    with running_console(tmp_path) as console:
        context = browser.new_context()
        page = context.new_page()
        page.goto(console.url)
        page.wait_for_selector("text=No device is enrolled yet")
        assert "vedette cloud token" in page.inner_text(".v-empty")
        console.do(console.fleet.enrol())
        page.wait_for_selector("text=No verdicts yet")
        console.bundle_problems = {"press-1-0000aaaa": "it is damaged: publish it again"}
        page.wait_for_selector("text=The service is not ready")
        assert "press-1-0000aaaa: it is damaged" in page.inner_text(".v-empty")
        console.do(console.fleet.send(CAMERA))
        page.goto(f"{console.url}/verdicts")
        page.wait_for_selector("tr[data-sample]")
        started_s = time.monotonic()
        console.stop()  # with a page open
        assert time.monotonic() - started_s < 5
        context.close()

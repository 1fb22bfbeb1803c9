"""A browser that hangs is ended when it should close; a crashed page is named."""

import contextlib
import os
import signal
from typing import Any

import pytest
from playwright.sync_api import Error

from tests.cloud.console import limited_browser
from tests.cloud.console.browsing import Tabs, wait_until


def test_a_browser_that_hangs_is_ended_and_the_next_context_gets_another(
    browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_browser, "CLOSE_S", 0.5)
    context = browser.new_context()
    context.new_page().goto("data:text/html,<h1>one</h1>")
    hung = browser.pid
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(pytest.fail.Exception, match=f"Chromium hangs, .* process {hung} was ended"):
        context.close()
    monkeypatch.undo()
    again = browser.new_context()
    page = again.new_page()
    page.goto("data:text/html,<h1>two</h1>")
    assert page.inner_text("h1") == "two"
    assert browser.pid != hung
    again.close()


def test_a_renderer_that_crashes_fails_the_test_by_name(browser: Any) -> None:
    context = browser.new_context()
    tabs = Tabs("data:text/html,", context)
    page = tabs("<h1>one</h1>", at="h1")
    with contextlib.suppress(Error):  # the page is gone
        page.goto("chrome://crash")
    wait_until(context.new_page(), lambda: bool(tabs.problems), "the crash was not noticed")
    assert "renderer of data:text/html,<h1>one</h1> crashed" in tabs.problems[0]
    tabs.close()
    context.close()

"""Forms of the account pages, filled in as a browser does."""

import re

import httpx

PASSWORD = "correct horse battery"


def hidden(page: httpx.Response, name: str = "csrf") -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


async def fill(client: httpx.AsyncClient, path: str, action: str = "", **fields: str) -> httpx.Response:
    """Open a page and send its first form."""
    page = await client.get(path)
    assert page.status_code == 200, page.text
    return await client.post(action or path, data={"csrf": hidden(page), **fields})


async def sign_in_by_form(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.Response:
    return await fill(client, "/sign-in", name=name, password=password)

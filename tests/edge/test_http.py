"""The HTTP routes: health, and the page with the headers that keep it harmless."""

import re

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from agentws.edge.http import health_routes, page_routes


async def ready() -> str | None:
    return None


async def draining() -> str | None:
    return "draining"


async def ask(
    routes: list[BaseRoute], path: str, method: str = "GET", *, headers: dict[str, str] | None = None
) -> httpx.Response:
    app = Starlette(routes=routes)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agentws.test") as client:
        return await client.request(method, path, headers=headers)


async def test_a_process_that_lives_says_so_also_while_it_may_get_no_traffic() -> None:
    answer = await ask(health_routes(draining), "/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_process_that_may_get_traffic_is_ready() -> None:
    answer = await ask(health_routes(ready), "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_a_process_that_may_not_says_why_and_when_to_ask_again() -> None:
    answer = await ask(health_routes(draining), "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not_ready", "reason": "draining"})
    assert int(answer.headers["retry-after"]) >= 1


async def test_readiness_is_asked_anew_each_time() -> None:
    reasons = iter([None, "draining", None])

    async def next_reason() -> str | None:
        return next(reasons)

    routes = health_routes(next_reason)
    assert [(await ask(routes, "/readyz")).status_code for _ in range(3)] == [200, 503, 200]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_only_read(path: str) -> None:
    assert (await ask(health_routes(ready), path, "HEAD")).status_code == 200
    assert (await ask(health_routes(ready), path, "POST")).status_code == 405


MODULES = ["page", "composer", "connection", "dom", "drawers", "frames", "notes", "prose", "run", "threads", "agentws"]
SCRIPTS = ["/theme.js", *(f"/{name}.js" for name in MODULES)]
FILES = ["/", "/page.css", *SCRIPTS]


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/", "text/html"), ("/page.css", "text/css"), *((each, "text/javascript") for each in SCRIPTS)],
)
async def test_the_page_and_its_files_are_served(path: str, media_type: str) -> None:
    answer = await ask(page_routes(), path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert answer.text.strip()


@pytest.mark.parametrize("path", FILES)
async def test_the_page_may_load_its_own_files_only_and_stands_in_no_frame(path: str) -> None:
    headers = (await ask(page_routes(), path)).headers
    rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    for directive in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert rules[directive] == "'none'"
    for directive in ("script-src", "style-src", "connect-src"):
        assert rules[directive] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_the_page_names_its_files_relatively_and_holds_no_script_or_style_of_its_own() -> None:
    text = (await ask(page_routes(), "/")).text
    assert text.count("<script") == 2
    assert re.findall(r'<script(?: type="module")? src="([^"]+)"></script>', text) == ["theme.js", "page.js"]
    assert 'href="page.css"' in text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|(src|href)=\"/", text)


@pytest.mark.parametrize("path", SCRIPTS)
async def test_no_script_writes_markup(path: str) -> None:
    text = (await ask(page_routes(), path)).text
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser", text
    )


@pytest.mark.parametrize("path", FILES)
async def test_a_file_is_sent_again_only_where_it_has_changed(path: str) -> None:
    first = await ask(page_routes(), path)
    assert first.headers["cache-control"] == "no-cache"
    held = {"If-None-Match": f'"other", {first.headers["etag"]}'}
    again = await ask(page_routes(), path, headers=held)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert (await ask(page_routes(), path, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_a_file_is_compressed_for_those_who_take_it() -> None:
    plain = await ask(page_routes(), "/page.js", headers={"Accept-Encoding": "identity"})
    packed = await ask(page_routes(), "/page.js", headers={"Accept-Encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.text == plain.text
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["/index.html", "/page.py", "/../http.py", "/playground/index.html", "/js/agentws.js"])
async def test_nothing_else_of_the_directories_is_served(path: str) -> None:
    assert (await ask(page_routes(), path)).status_code == 404

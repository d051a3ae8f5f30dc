"""Section 6, the part for those who run it: the probes answer without credentials."""

import httpx
import pytest

from .client import JwtServer, Server


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_probe_of_a_server_at_work_is_200(server: Server, path: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(server.http_url + path)).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_probe_needs_no_credentials(jwt_server: JwtServer, path: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(jwt_server.http_url + path)).status_code == 200

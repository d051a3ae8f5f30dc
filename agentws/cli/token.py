"""`agentws token`: a signed token, for trying a server that wants one."""

import argparse
import time

import jwt

from agentws.cli.options import Commands, add_place, settings_of
from agentws.settings import SettingsError

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Adds the command to a command line."""
    token = commands.add_parser("token", help="print a token for a user, signed with AGENTWS_JWT_SECRET")
    token.add_argument("--user", required=True, help="the user's id")
    token.add_argument("--ttl", type=float, default=3600, metavar="S", help="seconds until it expires (default 3600)")
    add_place(token)
    token.set_defaults(run=_token)


def _token(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if not settings.jwt_secret:
        raise SettingsError("AGENTWS_JWT_SECRET: a secret is needed to sign a token")
    now = int(time.time())
    claims = {settings.user_claim: options.user, "iat": now, "exp": now + int(options.ttl)}
    print(jwt.encode(claims, settings.jwt_secret, algorithm="HS256"))
    return 0

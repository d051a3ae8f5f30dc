"""`agentws config`: every setting, its value, where that came from, and what it is for; secrets are hidden."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from agentws.cli.options import Commands, add_serve_options, loaded_of
from agentws.settings import FIELDS, Loaded, shown

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Adds the command to a command line."""
    config = commands.add_parser("config", help="show every setting, its value and where it came from")
    add_serve_options(config)
    config.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    config.set_defaults(run=_config)


def _config(options: argparse.Namespace) -> int:
    loaded = loaded_of(options)
    if options.json:
        print(json.dumps(_as_json(loaded), indent=2))
        return 0
    for line in _as_table(loaded):
        print(line)
    for warning in loaded.warnings:
        print(f"agentws: warning: {warning}", file=sys.stderr)
    return 0


def _as_json(loaded: Loaded) -> dict[str, Any]:
    settings = {
        name: {
            "value": shown(name, getattr(loaded.settings, name)),
            "origin": loaded.origins[name],
            "unit": field.unit or None,
            "variable": field.variable,
            "description": field.description,
        }
        for name, field in FIELDS.items()
    }
    return {"settings": settings, "warnings": list(loaded.warnings)}


def _as_table(loaded: Loaded) -> Iterator[str]:
    rows = [("setting", "value", "from", "")]
    for name, field in FIELDS.items():
        value = _text(shown(name, getattr(loaded.settings, name)))
        rows.append((name, f"{value} {field.unit}".strip(), loaded.origins[name], field.description))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[3]]).rstrip()


def _text(value: Any) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
    return str(value)

"""What the environment sets by default: one table, read before everything that is given."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

__all__ = ["PROFILES", "Environment"]

Environment = Literal["development", "test", "staging", "production"]

PROFILES: Final[Mapping[Environment, Mapping[str, Any]]] = MappingProxyType(
    {
        "development": {"page": True, "migrate_at_start": True, "log_format": "text"},
        "test": {"page": True, "migrate_at_start": True, "log_format": "text"},
        "staging": {"page": True, "migrate_at_start": False, "log_format": "json"},
        "production": {"page": False, "migrate_at_start": False, "log_format": "json"},
    }
)

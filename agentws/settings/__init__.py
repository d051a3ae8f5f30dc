"""Settings: what can be set, where each value comes from, and what is refused."""

from agentws.settings.cascade import Loaded, default_data_dir, load, read
from agentws.settings.fields import FIELDS, Field, Settings, SettingsError, shown
from agentws.settings.refusals import lifted, refusal

__all__ = [
    "FIELDS",
    "Field",
    "Loaded",
    "Settings",
    "SettingsError",
    "default_data_dir",
    "lifted",
    "load",
    "read",
    "refusal",
    "shown",
]

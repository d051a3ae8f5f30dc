"""URLs of databases: refused without being shown, shown without their passwords."""

import pytest

from agentws.settings.urls import fault_of, masked

GOOD = [
    ("postgresql://h/d", "postgresql://h/d"),
    ("postgres://ada@h:5432/d", "postgres://ada@h:5432/d"),
    ("postgresql://ada:pw@h/d", "postgresql://ada:***@h/d"),
    ("postgresql://ada:p%40w@h1:1,h2:2/d?sslmode=require", "postgresql://ada:***@h1:1,h2:2/d?sslmode=require"),
    ("postgresql://ada:pw@[::1]:5432/d", "postgresql://ada:***@[::1]:5432/d"),
    ("postgresql://ada@/d?host=/run/x&password=pw", "postgresql://ada@/d?host=/run/x&password=***"),
    ("postgresql:///d?host=/run/x&user=ada&sslpassword=pw", "postgresql:///d?host=/run/x&user=ada&sslpassword=***"),
    ("embedded", "embedded"),
]
BAD = [
    "",
    "h/d",
    "mysql://ada:pw@h/d",
    "postgresql://",
    "postgresql://ada:p@w@h/d",
    "postgresql://ada:p/pw@h/d",
    "postgresql://ada:pw?x@h/d",
    "postgresql://ada:p#pw@h/d",
    "postgresql://h:pw/d",
    "postgresql://[::1/d?password=pw",
]


@pytest.mark.parametrize(("url", "seen"), GOOD)
def test_a_url_is_shown_without_its_password(url: str, seen: str) -> None:
    assert fault_of(url) is None
    assert masked(url) == seen


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_url_of_a_database_is_refused_and_never_shown(url: str) -> None:
    fault = fault_of(url)
    assert fault is not None
    assert "pw" not in fault
    assert masked(url) == "***"

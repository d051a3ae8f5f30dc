"""Whose a request is: contexts that are complete and cannot be changed."""

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentws.core.context import Principal, UserExecutionContext, freeze
from agentws.wire.ids import ConnectionId, RunId, ThreadId

GIVEN: dict[str, Any] = {
    "tenant_id": "acme",
    "user_id": "u",
    "thread_id": ThreadId("t"),
    "run_id": RunId("r"),
    "request_id": "req-1",
    "connection_id": ConnectionId("conn-1"),
    "created_at": datetime(2024, 5, 6, tzinfo=UTC),
}


def test_a_principal_is_a_user_of_a_tenant() -> None:
    assert Principal("a", "u") == Principal("a", "u")
    assert len({Principal("a", "u"), Principal("b", "u"), Principal("a", "v"), Principal("u", "a")}) == 4


def test_a_context_has_what_it_was_given_and_defaults_for_a_first_attempt() -> None:
    context = UserExecutionContext(**GIVEN)
    assert {name: getattr(context, name) for name in GIVEN} == GIVEN
    assert (context.attempt, context.depth) == (1, 0)
    assert (context.root_run_id, context.parent_run_id, dict(context.context)) == (None, None, {})


@pytest.mark.parametrize("name", [field.name for field in fields(UserExecutionContext)])
def test_a_context_cannot_be_changed(name: str) -> None:
    context = UserExecutionContext(**GIVEN)
    with pytest.raises(FrozenInstanceError):
        setattr(context, name, "other")


@pytest.mark.parametrize("name", ["tenant_id", "user_id"])
def test_a_principal_cannot_be_changed(name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(Principal("a", "u"), name, "other")


@pytest.mark.parametrize(
    ("name", "value"), [("user_id", ""), ("thread_id", ""), ("run_id", ""), ("thread_id", "a b"), ("run_id", "x" * 129)]
)
def test_a_context_without_user_thread_or_run_cannot_be_made(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="a user, a thread and a run"):
        UserExecutionContext(**GIVEN | {name: value})


def test_contexts_without_client_context_do_not_share_something_to_write_to() -> None:
    shared: Any = UserExecutionContext(**GIVEN).context
    with pytest.raises(TypeError):
        shared["a"] = 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: thawed(each) for name, each in value.items()}
    return [thawed(each) for each in value] if isinstance(value, tuple) else value


def is_fixed(value: Any) -> bool:
    if isinstance(value, MappingProxyType):
        return all(is_fixed(each) for each in value.values())
    return all(is_fixed(each) for each in value) if isinstance(value, tuple) else not isinstance(value, dict | list)


@settings(database=None, deadline=None)
@given(JSON)
def test_a_frozen_value_is_the_same_and_fixed_all_the_way_down(value: Any) -> None:
    frozen = freeze(value)
    assert is_fixed(frozen)
    assert thawed(frozen) == value


def test_a_frozen_value_does_not_follow_the_value_it_was_made_from() -> None:
    inner: list[Any] = [1]
    value: dict[str, Any] = {"a": inner}
    frozen = freeze(value)
    inner.append(2)
    value["b"] = 3
    assert thawed(frozen) == {"a": [1]}

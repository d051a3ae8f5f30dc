"""What a lost attempt left: its text joined, and the tools that nobody closed."""

import json
from typing import Any

import pytest

from agentws.core.remains import read_remains


def wrote(text: str, offset: int = 0) -> tuple[str, str]:
    return "agent_message", json.dumps({"text": text, "offset": offset})


def began(execution_id: str, name: str = "search") -> tuple[str, str]:
    return "tool_executing", json.dumps({"execution_id": execution_id, "tool_name": name, "parameters": {"q": 1}})


def closed(execution_id: str) -> tuple[str, str]:
    done: dict[str, Any] = {"success": True, "outcome": "done", "result": [1], "error": None, "duration_ms": 1}
    return "tool_completed", json.dumps({"execution_id": execution_id, "tool_name": "search", **done})


CASES: list[tuple[list[tuple[str, str]], str, list[str]]] = [
    ([], "", []),
    ([wrote("a")], "a", []),
    ([wrote("a "), wrote("é🎈", 2), wrote("")], "a é🎈", []),
    ([began("x")], "", ["x"]),
    ([began("x"), closed("x")], "", []),
    ([began("x"), began("y"), closed("x")], "", ["y"]),
    ([began("x"), began("y"), began("z"), closed("y")], "", ["x", "z"]),
    ([wrote("a"), began("x"), wrote("b"), closed("x"), wrote("c"), began("y")], "abc", ["y"]),
    ([closed("x")], "", []),
    ([("agent_thinking", "{}"), ("agent_event", "no JSON"), ("unknown", ""), wrote("a")], "a", []),
]


@pytest.mark.parametrize(("events", "text", "tools"), CASES)
def test_text_is_joined_and_open_tools_are_kept_in_order(
    events: list[tuple[str, str]], text: str, tools: list[str]
) -> None:
    remains = read_remains(iter(events))
    assert remains.text == text
    assert [tool.execution_id for tool in remains.open_tools] == tools


def test_an_open_tool_keeps_its_name_and_parameters() -> None:
    (tool,) = read_remains([began("x", "lookup")]).open_tools
    assert tool.tool_name == "lookup"
    assert json.loads(bytes(tool.parameters)) == {"q": 1}

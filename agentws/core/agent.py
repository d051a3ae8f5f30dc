"""What an agent is: a coroutine function that is handed a run, and what it declares about itself."""

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

__all__ = ["AgentSpec", "agent", "declare"]

OnCrash = Literal["fail", "restart"]
_ATTRIBUTE = "__agentws__"
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSpec:
    """An agent under its name. `timeout_s` is in seconds from `agent_started`; None: the server's setting."""

    name: str
    call: Callable[[Any], Awaitable[Any]]
    on_crash: OnCrash = "fail"
    timeout_s: float | None = None


def agent(*, on_crash: OnCrash = "fail", timeout_s: float | None = None) -> Callable[[F], F]:
    """Declares what of an agent differs from the defaults; stands above its function.

    Args:
        on_crash: what becomes of a run whose process was lost: it fails (`worker_lost`), or it is started anew, up to
            three attempts; then a tool may have taken effect more than once.
        timeout_s: how long a run may take, in seconds from `agent_started`; more than 0.
    """
    if on_crash not in ("fail", "restart"):
        raise ValueError("on_crash is 'fail' or 'restart'")
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise ValueError("timeout_s has to be more than 0, and finite")

    def mark(function: F) -> F:
        setattr(function, _ATTRIBUTE, {"on_crash": on_crash, "timeout_s": timeout_s})
        return function

    return mark


def declare(agents: Mapping[str, Any]) -> dict[str, AgentSpec]:
    """The specs of a mapping from names to agents.

    Raises:
        TypeError: if one of them is not a coroutine function (or an object with an asynchronous `__call__`).
        ValueError: if a name is empty or longer than 128 characters.
    """
    specs = {}
    for name, call in agents.items():
        if not 1 <= len(name) <= 128:
            raise ValueError(f"{name!r} cannot name an agent: 1 to 128 characters are needed")
        if inspect.isclass(call) or not (
            inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
        ):
            raise TypeError(f"agent {name!r} is not an async function: {call!r}")
        specs[name] = AgentSpec(name=name, call=call, **getattr(getattr(call, "func", call), _ATTRIBUTE, {}))
    return specs

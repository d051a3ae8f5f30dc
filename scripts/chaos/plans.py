"""What an agent of the chaos harness does is a pure function of its name and the user's text.

So agents play a plan, clients write a text that makes one, and the checker knows every word that must have come of it.
"""

import random
from dataclasses import dataclass
from typing import Any

__all__ = [
    "RESTARTED",
    "Call",
    "Emit",
    "Fail",
    "Plan",
    "Return",
    "Step",
    "Think",
    "Together",
    "Write",
    "plan",
    "request",
]

RESTARTED = frozenset({"steady"})
"""Agents whose run starts again where its process was lost."""

_BIG_PIECES, _BIG_PIECE = 50, 4000
_LETTERS = ("lorem", "ipsum", "dölör", "sit", "λόγος", "🙂🙃", "amet,", "et\u0301", "naïve", "end.")


@dataclass(frozen=True)
class Think:
    text: str


@dataclass(frozen=True)
class Call:
    """A tool that sleeps, tells `progress` times how far it is, and returns `result` or raises."""

    name: str
    parameters: dict[str, Any]
    result: dict[str, Any]
    seconds: float
    threaded: bool = False
    raises: bool = False
    progress: int = 0


@dataclass(frozen=True)
class Together:
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Write:
    text: str
    pause_s: float = 0.0


@dataclass(frozen=True)
class Emit:
    name: str
    value: dict[str, Any]


@dataclass(frozen=True)
class Fail:
    """Ends the run in `agent_error`: with a code of the agent's own, or (`agent_failed`) by an exception."""

    code: str


@dataclass(frozen=True)
class Return:
    text: str


Step = Think | Together | Write | Emit | Fail | Return
Plan = tuple[Step, ...]


def request(user: str, nonce: str, *, seconds: float = 0.0) -> str:
    """The text of a request that no other request has; slow agents take about so many seconds for it."""
    return f"<{user}> {nonce} {seconds:.2f}"


def plan(agent: str, text: str) -> Plan:
    """What `agent` does when it is asked `text`."""
    marker, nonce, seconds = [*text.split(" "), "", ""][:3]
    rng = random.Random(f"{agent} {text}")
    name = f"{marker} {nonce}"
    match agent:
        case "echo":
            return (Return(text),)
        case "slow":
            return tuple(_words(name, rng, float(seconds or 0)))
        case "big":
            return tuple(Write(_piece(name, number), 0.01) for number in range(_BIG_PIECES))
        case "fails":
            fate = rng.choice(("agent_failed", "model_unavailable", ""))
            begun: tuple[Step, ...] = (Think(f"{name} doubts"), Write(f"{name} begins"))
            return (*begun, Fail(fate)) if fate else (*begun, Write(" and ends"))
        case "steady":
            return (
                Think(f"{name} is steady"),
                Together((_call(name, rng, 1, float(seconds or 0) / 2),)),
                *_words(name, rng, float(seconds or 0) / 2),
            )
    return _tools(name, rng)


def _words(name: str, rng: random.Random, seconds: float) -> list[Write]:
    count = rng.randint(3, 20)
    words = [f"{name} ", *(f"{rng.choice(_LETTERS)}-{number} " for number in range(count))]
    return [Write(word, seconds / count) for word in words]


def _piece(name: str, number: int) -> str:
    start = f"{name} piece {number}: "
    return start + (f"{number % 10}·" * _BIG_PIECE)[: _BIG_PIECE - len(start)]


def _call(name: str, rng: random.Random, number: int, seconds: float) -> Call:
    return Call(
        name=rng.choice(("search", "measure")),
        parameters={"about": name, "call": number},
        result={"found": f"{name} {rng.randrange(10**6)}", "call": number},
        seconds=seconds,
        threaded=rng.random() < 0.4,
        raises=rng.random() < 0.1,
        progress=rng.choice((0, 0, 3)),
    )


def _tools(name: str, rng: random.Random) -> Plan:
    steps: list[Step] = []
    for number in range(1, rng.randint(1, 3) + 1):
        steps.append(Think(f"{name} thinks of {number}"))
        calls = [_call(name, rng, number * 10, rng.choice((0.0, 0.0, 0.05)))]
        if rng.random() < 0.2:
            calls.append(_call(name, rng, number * 10 + 1, 0.02))
        steps.append(Together(tuple(calls)))
        if rng.random() < 0.3:
            steps.append(Emit("chaos.note", {"of": name, "number": number}))
        steps.append(Write(f"{name} found {number}. "))
    return tuple(steps)

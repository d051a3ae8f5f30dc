"""What the parts promise each other. The promises are in the docstrings; the implementations keep them."""

from agentws.ports.broker import Broker, Listener
from agentws.ports.edge import Authenticator, Caller, Credentials
from agentws.ports.run import Run
from agentws.ports.store import (
    End,
    Fenced,
    Head,
    IssuedTicket,
    Journal,
    Nodes,
    OpenThread,
    Page,
    RedeemedTicket,
    Renewal,
    Retention,
    Starts,
    Stopping,
    StoreUnavailable,
    ThreadKey,
    Threads,
    Tickets,
)

__all__ = [
    "Authenticator",
    "Broker",
    "Caller",
    "Credentials",
    "End",
    "Fenced",
    "Head",
    "IssuedTicket",
    "Journal",
    "Listener",
    "Nodes",
    "OpenThread",
    "Page",
    "RedeemedTicket",
    "Renewal",
    "Retention",
    "Run",
    "Starts",
    "Stopping",
    "StoreUnavailable",
    "ThreadKey",
    "Threads",
    "Tickets",
]

"""A thread's events for its followers: the journal and what is heard of it, joined by number; each once, in order."""

from agentws.feed.feed import Feed
from agentws.feed.subscription import Follower, Subscription

__all__ = ["Feed", "Follower", "Subscription"]

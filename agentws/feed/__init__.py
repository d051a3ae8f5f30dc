"""A thread's events for its followers: the journal and what is heard of it, joined by number; each once, in order."""

from agentws.feed.budget import Budget
from agentws.feed.feed import Feed
from agentws.feed.subscription import Follower, Frame, Subscription

__all__ = ["Budget", "Feed", "Follower", "Frame", "Subscription"]

"""The sample agents, and one that says which process it runs in."""

import os

import agentws

from ..sample_agents import agents as sample_agents

__all__ = ["agents"]


async def process(run: agentws.Run) -> str:
    return str(os.getpid())


agents = {**sample_agents, "process": process}

"""Faults, load and an independent checker: what the protocol promises is held to what clients were really told."""

__all__: list[str] = []

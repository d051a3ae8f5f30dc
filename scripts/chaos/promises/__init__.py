"""The promises of the protocol's page, a module for each kind, as functions from what was recorded to findings."""

__all__: list[str] = []

"""The server seen from outside: every promise of the protocol page that a client can check, and nothing else."""

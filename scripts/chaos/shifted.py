"""`agentws` under a shifted clock: the library that shifts it refuses the sleep that Python asks for, so that Python
asks for another one here. Nothing else differs."""

import select
import sys
import time
from typing import SupportsIndex

from agentws.cli import main

__all__: list[str] = []


def _sleep(seconds: SupportsIndex | float, /) -> None:
    select.select([], [], [], float(seconds))


if __name__ == "__main__":
    time.sleep = _sleep
    sys.exit(main())

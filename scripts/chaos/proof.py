"""Proof that the chaos harness finds faults: each of seven is put into a copy of the project, and has to be found.

Exits with 1 where one was not.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.chaos.mutations import MUTATIONS, Mutation
from scripts.chaos.servers import ROOT

__all__ = ["main"]


@dataclass(frozen=True)
class Tried:
    """What chaos said of one mutation; `report` is None where it ended without one."""

    mutation: Mutation
    report: dict[str, Any] | None
    errors: str

    @property
    def found(self) -> bool:
        """Whether it was found by what the checks say, and not by a harness that broke."""
        return self.report is not None and bool(self.report["findings"])

    def shown(self) -> dict[str, Any]:
        """As it is printed."""
        told = {"mutation": self.mutation.name, "found": self.found}
        if self.report is None:
            return {**told, "errors": self.errors[-2000:]}
        return {**told, "promises": self.report["promises_broken"], "first": self.report["findings"][:1]}


def copy_project(target: Path) -> None:
    """Copies every file that git knows of, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def try_out(mutation: Mutation, *, seed: int, seconds: float) -> Tried:
    """Runs chaos on a copy of the project that has this fault."""
    with tempfile.TemporaryDirectory(prefix="agentws-proof-") as place:
        root = Path(place)
        copy_project(root)
        for edit in mutation.edits:
            edit.apply(root)
        only = ["--faults", ",".join(mutation.faults)] if mutation.faults else []
        command = [sys.executable, "-m", "scripts.chaos", "--seed", str(seed), "--seconds", str(seconds), *only]
        done = subprocess.run([*command, "--no-minimum"], cwd=root, capture_output=True, text=True, check=False)
    try:
        return Tried(mutation, json.loads(done.stdout), done.stderr)
    except ValueError:
        return Tried(mutation, None, done.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.chaos.proof", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each is tried (60)")
    parser.add_argument("--seed", type=int, default=1, help="of each try (1)")
    parser.add_argument("--only", type=int, action="append", metavar="N", help="the N-th of them, from 1 on")
    options = parser.parse_args(arguments)
    missed = 0
    for number, mutation in enumerate(MUTATIONS, start=1):
        if options.only and number not in options.only:
            continue
        tried = try_out(mutation, seed=options.seed, seconds=options.seconds)
        missed += not tried.found
        print(json.dumps({"number": number, **tried.shown()}), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m deploy.setup [--dev] [--check]`, run by the script `prepare` from the root."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.setup.commands import Failure, say
from deploy.setup.environment import Checkout, portable_wheel, prepare


def main(arguments: list[str]) -> int:
    """Prepare the environment; 0: it stands, 1: `--check` finds it wanting, 2: it failed."""
    parser = argparse.ArgumentParser(prog="prepare", description="Make .venv hold what is locked.")
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    parser.add_argument("--check", action="store_true", help="only tell whether all is there")
    parser.add_argument(
        "--portable-wheel",
        action="store_true",
        help="only compile llama.cpp for any processor, once, and print where the wheel is",
    )
    options = parser.parse_args(arguments)
    checkout = Checkout(Path.cwd())
    try:
        if options.portable_wheel:
            sys.stdout.write(f"{portable_wheel(checkout)}\n")
            return 0
        if options.check:
            return 0 if checkout.is_ready(options.dev) else 1
        prepare(checkout, options.dev)
    except (Failure, OSError, ValueError) as error:
        say(str(error))
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("stopped; what is finished is kept, repeat to go on")
        sys.exit(130)

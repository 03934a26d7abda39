"""``python -m setpoint``, and the entry point ``setpoint``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded, half a second, ends it as Ctrl-C later does."""
    try:
        from setpoint.cli import main as run
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()

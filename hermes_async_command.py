"""`hermes-async`, as it is installed: Ctrl-C also ends it quietly while it is still being imported."""

import sys
from importlib import import_module


def main() -> None:
    """Obey the command line of this process."""
    try:
        command = import_module("hermes_async.cli.main")
    except KeyboardInterrupt:
        sys.exit(130)
    command.main()

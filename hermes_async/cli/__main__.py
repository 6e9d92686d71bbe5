"""`python -m hermes_async.cli` is `hermes-async`."""

from hermes_async.cli.main import main

main()

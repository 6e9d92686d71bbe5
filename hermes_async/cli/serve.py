"""`hermes-async worker` and `hermes-async relay`: one process of the project."""

from __future__ import annotations

import os
import re
import sys

import click

from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Command
from hermes_async.cli.shell import Shell
from hermes_async.core.hermes import Hermes
from hermes_async.domain.task import Lane
from hermes_async.relay.secret import relay_secret
from hermes_async.relay.server import serve
from hermes_async.settings import Settings
from hermes_async.worker.command import slots, worker_command

#: How a relay's own line begins that tells where it listens.
RELAY_READY = "relay on "


def _range(_: click.Context, __: click.Parameter, said: str | None) -> tuple[int, int] | None:
    """Read `4`, which is as many slots always, or `2-10`, which is as many as the load asks for."""
    if said is None:
        return None
    found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", said)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise click.BadParameter(
            f"{said!r} is neither a number from 1 on, such as 4, nor a range, such as 2-10"
        )
    return least, most


@click.command(cls=Command, example=("worker --lane async", "worker --lane process --concurrency 2-10"))
@click.option(
    "--lane",
    type=click.Choice([lane.value for lane in Lane]),
    required=True,
    help="Which queue, and which pool.",
)
@click.option(
    "--concurrency",
    metavar="N|MIN-MAX",
    callback=_range,
    help="Coroutines (async) or processes (process) at once; by default as agents.yaml says.",
)
@click.pass_obj
def worker(shell: Shell, lane: str, concurrency: tuple[int, int] | None) -> None:
    """Run one Celery worker of a lane, in place of this process."""
    settings = settings_of(shell)
    least, most = concurrency or slots(Lane(lane), settings.agents.async_worker_pool)
    loglevel = "DEBUG" if shell.verbose else "INFO"
    argv = worker_command(Lane(lane), concurrency=least, up_to=most, loglevel=loglevel)
    if settings.config:
        os.environ["HERMES_CONFIG"] = str(settings.config.absolute())
    sys.stdout.flush()
    os.execv(argv[0], argv)


@click.command(cls=Command, example="relay --port 8765")
@click.option("--host", help="The address to listen on; by default as agents.yaml says.")
@click.option("--port", type=click.IntRange(0, 65_535), help="0: any free one.")
@click.pass_obj
def relay(shell: Shell, host: str | None, port: int | None) -> None:
    """Run the relay until Ctrl-C."""
    settings = settings_of(shell)
    spec = settings.agents.relay
    where = (host or spec.host, spec.port if port is None else port)
    with_hermes(settings, _relay, settings, *where)


async def _relay(hermes: Hermes, settings: Settings, host: str, port: int) -> None:
    def ready(chosen: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"{RELAY_READY}http://{shown}:{chosen}")
        sys.stdout.flush()

    await serve(hermes, host, port, relay_secret(settings), on_ready=ready)

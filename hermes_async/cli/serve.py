"""`hermes-async worker` and `hermes-async relay`: one process of the project."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

import click

from hermes_async.adapters import logs
from hermes_async.adapters.relay_place import tell_relay
from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.group import Command
from hermes_async.cli.shell import Shell
from hermes_async.core.callbacks import PLACES
from hermes_async.core.hermes import Hermes
from hermes_async.domain.task import Lane
from hermes_async.relay.line import Limits
from hermes_async.relay.secret import relay_secret
from hermes_async.relay.server import serve
from hermes_async.settings import Settings, relay_address
from hermes_async.worker.callbacks import GRACE, run
from hermes_async.worker.command import slots, worker_command

#: How a relay's own line begins that tells where it listens.
RELAY_READY = "relay on "
#: The lane that calls functions and webhooks, and how its worker's line begins that tells that it does.
CALLBACKS, CALLBACKS_READY = "callbacks", "callbacks: "


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


@click.command(
    cls=Command, example=("worker --lane async", "worker --lane process --concurrency 2-10 --grace 60")
)
@click.option(
    "--lane",
    type=click.Choice([*(lane.value for lane in Lane), CALLBACKS]),
    required=True,
    help="Which queue, and which pool; callbacks: what is to be called with news of tasks.",
)
@click.option(
    "--concurrency",
    metavar="N|MIN-MAX",
    callback=_range,
    help="Coroutines (async), processes (process) or calls (callbacks, one number) at once; by default as "
    f"agents.yaml says, and {PLACES} calls.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    help="For what runs to end when the worker is told to stop; what does not goes on in another. "
    f"By default tasks have as long as they take, calls {GRACE:g} s.",
)
@click.pass_obj
def worker(shell: Shell, lane: str, concurrency: tuple[int, int] | None, grace: float | None) -> None:
    """Run one worker of a lane: a Celery worker in place of this process, or one that makes calls."""
    if grace is not None:
        os.environ["HERMES_GRACE"] = str(grace)
    settings = settings_of(shell)
    if lane == CALLBACKS:
        _make_calls(shell, settings, concurrency or (PLACES, PLACES))
    least, most = concurrency or slots(Lane(lane), settings.agents.async_worker_pool)
    loglevel = "DEBUG" if shell.verbose else "INFO"
    namespace = settings.agents.namespace
    argv = worker_command(Lane(lane), concurrency=least, up_to=most, loglevel=loglevel, namespace=namespace)
    if settings.config:
        os.environ["HERMES_CONFIG"] = str(settings.config.absolute())
    sys.stdout.flush()
    os.execv(argv[0], argv)


def _make_calls(shell: Shell, settings: Settings, places: tuple[int, int]) -> NoReturn:
    if places[0] != places[1]:
        raise click.BadParameter(
            "a callbacks worker does not grow: write one number", param_hint="--concurrency"
        )
    level = logging.DEBUG if shell.verbose else logging.INFO
    logs.set_up(level, as_json=settings.logs_json)
    code = run(settings, places=places[0], on_ready=partial(_tell_ready, settings.logs_json))
    sys.stdout.flush()
    logging.shutdown()
    os._exit(code)  # a call that hangs must not hold up the end


def _tell_ready(as_json: bool, count: int) -> None:
    text = f"{CALLBACKS_READY}{count} function{'s' * (count != 1)}"
    click.echo(logs.told(as_json, "hermes.callbacks", text))
    sys.stdout.flush()


@click.command(cls=Command, example="relay --port 8765")
@click.option("--host", help="The address to listen on; by default as agents.yaml says.")
@click.option("--port", type=click.IntRange(0, 65_535), help="0: any free one.")
@click.pass_obj
def relay(shell: Shell, host: str | None, port: int | None) -> None:
    """Run the relay until Ctrl-C."""
    settings = settings_of(shell)
    level = logging.INFO if shell.verbose else logging.WARNING
    logs.set_up(level, as_json=settings.logs_json, form="hermes-async: %(message)s")
    spec = settings.agents.relay
    where = (host or spec.host, spec.port if port is None else port)
    with_hermes(settings, _relay, settings, *where)


async def _relay(hermes: Hermes, settings: Settings, host: str, port: int) -> None:
    told = ExitStack()

    def ready(chosen: int) -> None:
        told.enter_context(tell_relay(settings.state_dir, relay_address(host, chosen)))
        shown = f"[{host}]" if ":" in host else host
        text = f"{RELAY_READY}http://{shown}:{chosen}"
        click.echo(logs.told(settings.logs_json, "hermes.relay", text))
        sys.stdout.flush()

    spec = settings.agents.relay
    limits = Limits(connections=spec.max_connections, per_address=spec.max_per_address)
    secret = relay_secret(settings)
    with told:
        await serve(hermes, host, port, secret, on_ready=ready, limits=limits, origins=spec.origins)

"""The Celery app: `celery -A hermes_async.worker.app worker` is the async lane, `-P prefork` the other."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import logging
import math
import sys
import warnings
from contextlib import ExitStack
from functools import cached_property, partial
from types import ModuleType
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import after_setup_logger, after_setup_task_logger, worker_init

from hermes_async.adapters import logs
from hermes_async.adapters.celery_queue import (
    declared_queue,
    exchange_name,
    over_lists,
    over_streams,
    queue_name,
    task_name,
    transport_url,
)
from hermes_async.bootstrap import read_settings, registry, servers, tracing
from hermes_async.core.importing import importing
from hermes_async.core.subagent import Subagent
from hermes_async.domain.errors import HermesError, UserError
from hermes_async.domain.task import Lane
from hermes_async.settings import Settings
from hermes_async.worker import lanes, signals
from hermes_async.worker.bodies import AgentFailed, Runners, run_here, run_on_loop
from hermes_async.worker.bootsteps import Ending, Release, SideJobs
from hermes_async.worker.handover import Handover

#: What "nothing accepted is lost" needs of Celery; a `celeryconfig.py` beside agents.yaml may add to it.
DEFAULTS: dict[str, Any] = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_backend": None,
    "task_ignore_result": True,
    "task_track_started": False,
    "task_acks_late": True,
    "task_acks_on_failure_or_timeout": True,
    "task_reject_on_worker_lost": True,
    "task_publish_retry": True,
    "task_create_missing_queues": False,
    "worker_prefetch_multiplier": 1,
    "worker_autoscaler": "hermes_async.worker.autoscale:ThresholdAutoscaler",
    "worker_consumer": "hermes_async.worker.consumer:OneThreadConsumer",
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # What a broker refuses for now (RabbitMQ a late ack; Redis on a full disk a write) must end no worker.
    "broker_channel_error_retry": True,
    "broker_heartbeat": 30,
}
#: Seconds after which Celery's lists deliver again what is not acknowledged: longer than any task, because
#: they do so while it runs; what a dead worker had, the janitor sends again much sooner.
VISIBILITY_TIMEOUT = 30 * 86_400
#: The exit code of a worker that no second start will help, as of a command that is wrong.
MISCONFIGURED = 2


class App(Celery):  # type: ignore[misc]
    """Celery, which asks for each message whether times are in UTC, and works that out anew each time."""

    def uses_utc_timezone(self) -> bool:
        """Tell whether times are in UTC."""
        return self._in_utc

    @cached_property
    def _in_utc(self) -> bool:
        return bool(super().uses_utc_timezone())


def create_app(settings: Settings) -> Celery:
    """Return the Celery app of a project: one task per agent, the queues of both lanes.

    Raises:
        ConfigError: an agent's function or celeryconfig.py cannot be imported, or an agent lacks something.
        EmbeddedServerError: no server is configured and none can be started.
    """
    known = registry(settings)
    where = _joined(settings)
    tracing(where)  # now, and not when a thread first needs it: a fork is no place for imports
    app = App("hermes_async", set_as_current=True)
    app.conf.update(DEFAULTS)
    app.conf.update(
        broker_url=transport_url(where.broker),
        broker_transport_options=_transport_options(where.broker, settings.lease),
        task_queues=[declared_queue(lane, where.namespace) for lane in Lane],
        task_default_queue=queue_name(Lane.ASYNC, where.namespace),
        control_exchange=exchange_name("celery", where.namespace),
        event_exchange=exchange_name("celeryev", where.namespace),
    )
    app.conf.update(_celeryconfig())
    runners = Runners(known, where, settings)
    for agent in known.runnable():
        known.check(agent)
        _register(app, runners, agent)
    app.hermes = runners
    app.steps["worker"].update((SideJobs, Ending, Release, Handover))
    signals.listen(runners)
    lanes.listen(settings.agents.async_worker_pool, where.namespace)
    _tell_ids(settings.logs_json)
    worker_init.connect(_fit_bodies, weak=False)
    worker_init.connect(_prepare, weak=False)
    return app


def _joined(settings: Settings) -> Any:
    """Return the servers, held for the life of the process."""
    stack = ExitStack()
    where = stack.enter_context(servers(settings))
    atexit.register(stack.close)
    return where


def _celeryconfig() -> dict[str, Any]:
    """Return the settings of the project's celeryconfig.py, if there is one."""
    if importlib.util.find_spec("celeryconfig") is None:
        return {}
    with importing("celeryconfig", "celeryconfig.py cannot be imported"):
        said = vars(importlib.import_module("celeryconfig"))
    return {name: value for name, value in said.items() if _is_setting(name, value)}


def _is_setting(name: str, value: Any) -> bool:
    return name.islower() and not name.startswith("_") and not isinstance(value, ModuleType)


def _transport_options(broker: str, lease: float) -> dict[str, Any]:
    """Return the options of a transport: on ours, a message is on lease as long as the task that it names.

    A connection may die without a word: kombu looks at those that only listen every `health_check_interval`
    seconds, and gives up one that is silent at two looks.
    """
    if over_lists(broker):
        return {"visibility_timeout": VISIBILITY_TIMEOUT}
    if not over_streams(broker):
        return {}
    silence = max(lease / 3, 2.0)
    return {"lease": lease, "socket_timeout": silence, "health_check_interval": math.ceil(silence)}


def _register(app: Celery, runners: Runners, agent: Subagent[..., Any]) -> None:
    name = task_name(agent.name)

    async def on_loop(self: Any) -> str:
        return await run_on_loop(runners, self.request.id)

    def here(self: Any) -> str:
        return run_here(runners, self.request.id)

    body = on_loop if agent.lane is Lane.ASYNC else here
    body.__doc__ = agent.description
    task = app.task(
        body,
        name=name,
        bind=True,
        queue=queue_name(agent.lane, runners.servers.namespace),
        throws=(AgentFailed,),
        Request=signals.WatchedRequest,
    )
    task.run_here = partial(here, task)
    if agent.lane is Lane.ASYNC:
        task.untraced = partial(run_on_loop, runners)


def _tell_ids(as_json: bool) -> None:
    """Let what Celery logs, and what agents log, say to which attempt it belongs."""

    def fit(logger: logging.Logger, **_: Any) -> None:
        logs.fit(logger.handlers, as_json=as_json)

    after_setup_logger.connect(fit, weak=False)
    after_setup_task_logger.connect(fit, weak=False)


def _fit_bodies(sender: Any, **_: Any) -> None:
    """In a worker of the process lane, an `async def` runs there: it may have lost its worker too often."""
    if lanes.lane_served(sender) is Lane.PROCESS:
        for task in sender.app.tasks.values():
            task.run = getattr(task, "run_here", task.run)


def _prepare(sender: Any, **_: Any) -> None:
    """In a worker of the async lane, do now what the first task would have to wait for."""
    if lanes.lane_served(sender) is Lane.ASYNC:
        known = sender.app.hermes.registry
        try:
            for agent in known.runnable():
                known.prepare(agent)
        except HermesError as exc:
            raise _refused(exc) from exc


def _hush() -> None:
    """Silence what Celery says of settings that are as they are on purpose."""
    # It warns root because of pickle, which we do not accept; whoever adds that is still refused.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Tasks outlive a lost connection to the broker. In the log, since Celery always shows its own warnings.
    logging.getLogger("py.warnings").addFilter(lambda record: "In Celery 5.1 we" not in record.getMessage())
    # At each cancel, every worker that does not have the task misses the result backend.
    control = logging.getLogger("celery.worker.control")
    control.addFilter(lambda record: "as revoked in backend" not in str(record.msg))


def _app() -> Celery:
    """Return the app of the project in the current folder, or end with one sentence on stderr."""
    _hush()
    try:
        return create_app(read_settings())
    except HermesError as exc:
        raise _refused(exc) from exc


def _refused(error: HermesError) -> SystemExit:
    """Say why there is no worker, and return its end: whoever started it learns whether to try again."""
    print(f"hermes-async: {error}", file=sys.stderr)
    return SystemExit(MISCONFIGURED if isinstance(error, UserError) else 1)


app = _app()

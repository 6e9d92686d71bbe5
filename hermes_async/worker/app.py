"""The Celery app: `celery -A hermes_async.worker.app worker` is the async lane, `-P prefork` the other."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
from contextlib import ExitStack
from typing import Any

from celery import Celery

from hermes_async.adapters.celery_queue import declared_queue, queue_name, task_name, transport_url
from hermes_async.bootstrap import read_settings, registry, servers
from hermes_async.core.subagent import Subagent
from hermes_async.domain.task import Lane
from hermes_async.settings import Settings
from hermes_async.worker import lanes, signals
from hermes_async.worker.bodies import AgentFailed, Runners, run_here, run_on_loop
from hermes_async.worker.bootsteps import SideJobs

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
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_heartbeat": 30,
}


def create_app(settings: Settings) -> Celery:
    """Return the Celery app of a project: one task per agent, the queues of both lanes.

    Raises:
        ConfigError: an agent's function cannot be imported.
        EmbeddedServerError: no server is configured and none can be started.
    """
    known = registry(settings)
    where = _joined(settings)
    app = Celery("hermes_async", set_as_current=True)
    app.conf.update(DEFAULTS)
    app.conf.update(
        broker_url=transport_url(where.broker),
        task_queues=[declared_queue(lane) for lane in Lane],
        task_default_queue=queue_name(Lane.ASYNC),
    )
    app.conf.update(_celeryconfig())
    runners = Runners(known, where, settings)
    for agent in known.runnable():
        _register(app, runners, agent)
    app.hermes = runners
    app.steps["worker"].add(SideJobs)
    signals.listen(app, runners)
    lanes.listen(settings.agents.async_worker_pool)
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
    module = importlib.import_module("celeryconfig")
    return {
        name: value for name, value in vars(module).items() if name.islower() and not name.startswith("_")
    }


def _register(app: Celery, runners: Runners, agent: Subagent[..., Any]) -> None:
    name = task_name(agent.name)

    async def on_loop(self: Any) -> str:
        return await run_on_loop(runners, self.request.id)

    def here(self: Any) -> str:
        return run_here(runners, self.request.id)

    body = on_loop if agent.lane is Lane.ASYNC else here
    body.__doc__ = agent.description
    app.task(body, name=name, bind=True, queue=queue_name(agent.lane), throws=(AgentFailed,))


app = create_app(read_settings())

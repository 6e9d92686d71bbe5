"""The Celery app of a project, as Celery's own command line imports it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.servers import ROOT

SHOW = """
import json
from hermes_async.worker.app import app
tasks = {name: [task.queue, task.Request.__name__] for name, task in app.tasks.items() if "hermes" in name}
print(json.dumps({"tasks": tasks, "conf": {name: app.conf[name] for name in %r}}))
"""
PROMISED = {
    "accept_content": ["json"],
    "broker_channel_error_retry": True,
    "broker_connection_max_retries": None,
    "result_backend": None,
    "task_acks_late": True,
    "task_acks_on_failure_or_timeout": True,
    "task_ignore_result": True,
    "task_reject_on_worker_lost": True,
    "worker_consumer": "hermes_async.worker.consumer:OneThreadConsumer",
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}


def imported(folder: Path, names: list[str], broker: str = "redis://127.0.0.1:1/0") -> Any:
    """What a worker process has after importing its app; nothing of it needs a server."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HERMES_MODULES": "tests.support.agents",
        "HERMES_TASK_QUEUE": broker,
        "HERMES_STATE": "redis://127.0.0.1:1/0",
        "HERMES_LEASE": "7",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHOW % names], cwd=folder, env=env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_agent_is_a_task_of_its_lane(tmp_path: Path) -> None:
    said = imported(tmp_path, [*PROMISED, "broker_url", "broker_transport_options", "broker_heartbeat"])
    assert said["tasks"]["hermes.echo"] == ["hermes.async", "WatchedRequest"]
    assert said["tasks"]["hermes.sync_echo"] == ["hermes.process", "WatchedRequest"]
    assert said["tasks"]["hermes.nap_in_child"] == ["hermes.process", "WatchedRequest"]
    conf = said["conf"]
    assert {name: conf[name] for name in PROMISED} == PROMISED
    assert conf["broker_url"] == "redisstream://127.0.0.1:1/0"
    # Messages are on lease as long as tasks.
    assert conf["broker_transport_options"] == {
        "lease": 7,
        "socket_timeout": 7 / 3,
        "health_check_interval": 3,
    }


def test_celeryconfig_wins_and_another_broker_gets_none_of_our_options(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("import os\n_x = 1\nbroker_heartbeat = 11\n")
    said = imported(tmp_path, ["broker_heartbeat", "broker_transport_options"], "amqp://127.0.0.1:1//")
    assert said["conf"] == {"broker_heartbeat": 11, "broker_transport_options": {}}

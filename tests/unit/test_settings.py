"""Settings: what wins over what, which variable is wrong, and which file was meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hermes_async.adapters.relay_place import tell_relay
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import ConfigError
from hermes_async.settings import Settings

FILE = """
agents:
  boss:
    subagents: [{id: research, timeout: 5}]
  research-agent: {model: gpt-4o-mini}
  research_agent: {}
task_queue: redis://file
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.read(environ=environ)
    return str(caught.value)


def test_the_tools_are_told_what_the_operator_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {
        "HERMES_SEARXNG_URL": "http://searx:8080",
        "HERMES_FETCH_ALLOW": "wiki.internal:8000, [::1]:80",
    }
    options = Settings.read(environ=environ).tool_names.options
    assert options.searxng_url == "http://searx:8080"
    assert options.fetch_allow == {"wiki.internal:8000", "[::1]:80"}
    for name, value, sentence in (
        ("SEARXNG_URL", "searx", "searxng_url must begin with https:// or http://"),
        ("FETCH_ALLOW", "wiki.internal", "is not a host and a port"),
    ):
        with pytest.raises(ConfigError, match=f"HERMES_{name}: .*{sentence}"):
            Settings.read(environ={f"HERMES_{name}": value})


def test_nothing_at_all_is_fine(project: Path) -> None:
    settings = Settings.read(environ={})
    assert settings.config is None
    assert settings.agents == AgentsConfig()
    assert (settings.project_dir, settings.state_dir) == (project, project / ".hermes")
    assert (settings.lease, settings.retention) == (15, 604_800)
    assert (settings.modules, settings.token) == ((), None)
    assert settings.relay_url == "http://127.0.0.1:8765"


def test_the_default_file_is_found(project: Path) -> None:
    (project / "agents.yaml").write_text(FILE)
    settings = Settings.read(environ={})
    assert settings.config == Path("agents.yaml")
    assert settings.agents.task_queue == "redis://file"


def test_a_named_file_makes_the_project(project: Path) -> None:
    (project / "sub").mkdir()
    (project / "sub/my.yaml").write_text(FILE)
    for settings in (
        Settings.read(Path("sub/my.yaml"), {"HERMES_CONFIG": "nowhere.yaml"}),
        Settings.read(environ={"HERMES_CONFIG": "sub/my.yaml"}),
    ):
        assert settings.project_dir == project / "sub"
        assert settings.state_dir == project / "sub/.hermes"


def test_a_named_file_must_exist() -> None:
    assert error_of(HERMES_CONFIG="nowhere.yaml").startswith("nowhere.yaml: there is no such file; create it")


def test_the_environment_wins_over_the_file(project: Path) -> None:
    (project / "agents.yaml").write_text(FILE)
    environ = {
        "HERMES_TASK_QUEUE": "redis://environment",
        "HERMES_STATE": "redis://state",
        "HERMES_ASYNC_WORKER_POOL__MAX_WORKERS": "20",
        "HERMES_ASYNC_WORKER_POOL__SCALE_THRESHOLD": "1",
        "HERMES_RELAY__PORT": "9000",
        "HERMES_RELAY__HOST": "0.0.0.0",
        "HERMES_RELAY__SECRET": "123",
        "HERMES_AGENTS__RESEARCH_AGENT__MODEL": "gpt-5",
        "HERMES_AGENTS__BOSS__SESSION__LOCK": "none",
        "HERMES_AGENTS__BOSS__SUBAGENTS__RESEARCH__TIMEOUT": "null",
        "HERMES_AGENTS__BOSS__SUBAGENTS__RESEARCH__RETRY__JITTER": "false",
        "HERMES_VERSION": "",
    }
    settings = Settings.read(environ=environ)
    agents = settings.agents
    assert (agents.task_queue, agents.state) == ("redis://environment", "redis://state")
    assert (agents.async_worker_pool.max_workers, agents.async_worker_pool.scale_threshold) == (20, 1)
    assert (agents.relay.port, agents.relay.secret) == (9000, "123")
    assert agents.agent("research-agent").model == "gpt-5"
    assert agents.agent("boss").session.lock == "none"
    assert agents.subagent("boss", "research").timeout is None
    assert agents.subagent("boss", "research").retry.jitter is False
    assert settings.relay_url == "http://127.0.0.1:9000"


def test_the_relay_that_runs_here_is_the_one_that_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text("relay: {host: '::1', port: 9000}")
    assert Settings.read(file, {}).relay_url == "http://[::1]:9000"
    with tell_relay(tmp_path / ".hermes", "http://127.0.0.1:4711"):
        assert Settings.read(file, {}).relay_url == "http://127.0.0.1:4711"
        told = {"HERMES_RELAY_URL": "wss://relay.example.com"}
        assert Settings.read(file, told).relay_url == "wss://relay.example.com"


def test_an_argument_wins_over_the_environment(project: Path) -> None:
    settings = Settings.read(
        environ={"HERMES_LEASE": "3"}, lease=4, token="t", agents=AgentsConfig(version="9")
    )
    assert (settings.lease, settings.token, settings.agents.version) == (4, "t", "9")


def test_its_own_variables(project: Path) -> None:
    environ = {
        "HERMES_LEASE": "2.5",
        "HERMES_RETENTION": "60",
        "HERMES_MODULES": " my_agents, lib.agents ,",
        "HERMES_TOKEN": "secret",
        "HERMES_RELAY_URL": "wss://relay.example.com",
        "HERMES_STATE_DIR": "var",
        "HERMES_CALLBACK_MODULES": "my_app.callbacks",
        "HERMES_WEBHOOK_ALLOW": "Hooks.internal:8080, [::1]:443,",
    }
    settings = Settings.read(environ=environ)
    assert (settings.lease, settings.retention) == (2.5, 60)
    assert settings.modules == ("my_agents", "lib.agents")
    assert "my_app.callbacks:told" in settings.callback_names
    assert (settings.token, settings.relay_url) == ("secret", "wss://relay.example.com")
    assert settings.state_dir == project / "var"
    assert settings.webhook_allow == {"hooks.internal:8080", "[::1]:443"}
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HERMES_LEASE", "soon", 'lease must be a number of seconds greater than 0, not "soon"'),
        ("HERMES_RETENTION", "nan", 'retention must be a number of seconds greater than 0, not "nan"'),
        (
            "HERMES_MODULES",
            "my agents",
            '"my agents" is not a Python module; write names such as my_agents,lib.agents',
        ),
        (
            "HERMES_RELAY_URL",
            "localhost",
            'relay_url must begin with http://, https://, ws:// or wss://, not "localhost"; '
            "write one such as http://localhost:8765",
        ),
        ("HERMES_WEBHOOK_ALLOW", "a:1,*", '"*" is not a host and a port; write some such as'),
        ("HERMES_WEBHOOK_ALLOW", "http://a:1", '"http://a:1" is not a host and a port'),
        ("HERMES_RELAY__PORT", "high", 'relay.port must be a port number from 0 to 65535, not "high"'),
        ("HERMES_STATE", "amqp://h", "state must begin with redis://, rediss:// or unix://"),
        ("HERMES_TASK_QUEUE", "amqp://h", "RabbitMQ cannot keep the state of tasks; add `state: redis://…`"),
        ("HERMES_NAMESPACE", "{p01}", "namespace must be a name of at most 40 letters, digits, `_` and `-`"),
        ("HERMES_TASK_QUEU", "redis://h", "no setting has this name; did you mean 'HERMES_TASK_QUEUE'?"),
        ("HERMES_RELAY_PORT", "1", "no setting has this name; did you mean 'HERMES_RELAY__PORT'?"),
        ("HERMES_LEASES", "1", "no setting has this name; did you mean 'HERMES_LEASE'?"),
        ("HERMES_RELAY__PROT", "1", "no setting has this name; did you mean 'PORT'?"),
        ("HERMES_RELEY__PORT", "1", "no setting has this name; did you mean 'RELAY'?"),
        (
            "HERMES_AGENTS__RESERCH_AGENT__MODEL",
            "m",
            "no setting has this name; did you mean 'RESEARCH_AGENT'?",
        ),
        (
            "HERMES_AGENTS__BOSS__SUBAGENTS__RSEARCH__TIMEOUT",
            "1",
            "no setting has this name; did you mean 'RESEARCH'?",
        ),
        ("HERMES_AGENTS__BOSS__TOOLS", "x", "this is not a single value; change it in agents.yaml"),
        ("HERMES_LIMITS", "1", "this is not a single value; change it in agents.yaml"),
    ],
)
def test_a_wrong_variable_is_named(project: Path, name: str, value: str, message: str) -> None:
    (project / "agents.yaml").write_text(FILE)
    assert error_of(**{name: value}).startswith(f"{name}: {message}")


def test_other_variables_are_left_alone(project: Path) -> None:
    (project / "agents.yaml").write_text("task_queue: ${HERMES_TASK_QUEUES}")
    environ = {
        "HERMES_TASK_QUEUES": "redis://mine",
        "HERMES_HOME": "/",
        "HERMES_X__Y": "1",
        "TASK_QUEUE": "x",
    }
    assert Settings.read(environ=environ).agents.task_queue == "redis://mine"


def test_a_wrong_file_is_told_before_what_overrides_it(project: Path) -> None:
    (project / "agents.yaml").write_text("relay: 5\n")
    message = "agents.yaml:1:8: relay must be keys and values, indented below it, not 5"
    assert error_of(HERMES_RELAY__PORT="1") == message


def test_the_import_is_light() -> None:
    heavy = "{'celery', 'redis', 'socketio', 'fastapi', 'click', 'kombu', 'pydantic_settings'}"
    code = f"import sys, hermes_async.settings; print(*{heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""

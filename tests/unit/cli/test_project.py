"""`agents`, `token`, `doctor`, and the relay's secret."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import ConfigError
from hermes_async.relay.auth import verify
from hermes_async.relay.secret import relay_secret
from hermes_async.settings import Settings
from tests.support.servers import Process, wait_until
from tests.unit.cli.conftest import HERMES, Cli, with_hermes


def test_agents_list(project: Path, cli: Cli) -> None:
    rows = [line.split("\t") for line in cli("agents", "list").out.splitlines()]
    assert rows[0][:2] == ["parent_agent", "conversational"]
    assert rows[1][:4] == ["research_agent", "task", "async", "examples.basics:wait"]
    assert rows[1][4].startswith("Sleep for some seconds")
    assert json.loads(cli("agents", "list", "--json").out)[2]["lane"] == "process"


def test_agents_check_names_each_agent_that_cannot_be_loaded(project: Path, cli: Cli) -> None:
    assert cli("agents", "check").code == 0
    Path("broken_module.py").write_text("1 / 0")
    Path("agents.yaml").write_text(
        "agents:\n"
        '  good: {run: "examples.basics:wait"}\n'
        '  typo: {run: "examples.basics:wiat"}\n'
        '  absent: {run: "nowhere.at_all:run"}\n'
        '  crash: {run: "broken_module:run"}\n'
        "  parent: {type: conversational, subagents: [{id: good, model: m}, {id: typo}]}\n"
    )
    said = cli("agents", "check")
    assert said.code == 1
    assert said.out.splitlines() == [
        "ok    good: examples.basics:wait, async lane",
        "ok    parent: conversational",
        "ok    parent -> good: good",
    ]
    assert "agent 'typo': module 'examples.basics' has no 'wiat'; did you mean 'wait'?" in said.err
    assert "agent 'absent': cannot import" in said.err
    assert "agent 'crash'" in said.err
    assert "ZeroDivisionError" in said.err
    assert len(said.err.splitlines()) == 3


def test_agents_check_tells_of_a_webhook_that_would_not_be_posted(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("agents.yaml").write_text(
        "agents:\n"
        '  good: {run: "examples.basics:wait"}\n'
        "  parent:\n"
        "    type: conversational\n"
        '    subagents: [{id: good, webhook: {url: "http://10.0.0.7:8080/hook"}}]\n'
    )
    said = cli("agents", "check")
    assert said.code == 0  # the worker that posts it may have another list
    [note] = [line for line in said.out.splitlines() if line.startswith("note")]
    assert note.startswith("note  agents.parent.subagents.good.webhook is not posted: ")
    assert "HERMES_WEBHOOK_ALLOW" in note
    monkeypatch.setenv("HERMES_WEBHOOK_ALLOW", "10.0.0.7:8080")
    assert "note" not in cli("agents", "check").out


def test_agents_schema_is_json(cli: Cli) -> None:
    assert json.loads(cli("agents", "schema").out)["title"] == "agents.yaml"


def test_without_agents_a_first_file_is_shown(project: Path, cli: Cli) -> None:
    Path("agents.yaml").unlink()
    assert "my_agents:research" in cli("agents", "check").err


def test_a_token_is_revoked_by_itself_or_by_its_name(online: Path, cli: Cli) -> None:
    made = cli("token", "--session", "a", "--read-only").out.strip()
    jti = jwt.decode(made, options={"verify_signature": False})["jti"]
    assert json.loads(cli("token", "revoke", made, "--json").out) == {"revoked": jti}
    assert cli("token", "revoke", "another").out == "token another is revoked\n"

    async def known(hermes: Hermes) -> set[str]:
        return set(await hermes.store.revoked([jti, "another", "third"]))

    assert asyncio.run(with_hermes(known)) == {jti, "another"}
    refused = cli("token", "revoke", "a.b.c")
    assert (refused.code, refused.out) == (2, "")


def test_a_token_is_good_for_the_projects_own_relay(project: Path, cli: Cli) -> None:
    secret = relay_secret(Settings.read())
    said = cli("token", "--session", "a", "--session", "b", "--sub", "me", "--ttl", "60")
    grant = verify(secret, said.out.strip())
    assert (grant.sub, grant.sessions) == ("me", {"a", "b"})
    assert verify(secret, json.loads(cli("token", "--all", "--json").out)["token"]).sessions == "*"


def test_the_configured_secret_is_used(project: Path) -> None:
    Path("agents.yaml").write_text(f"relay: {{secret: {'x' * 40}}}")
    assert relay_secret(Settings.read()) == "x" * 40
    assert not Path(".hermes").exists()


def test_those_who_ask_at_once_get_the_same_private_secret(project: Path) -> None:
    settings = Settings.read()
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: relay_secret(settings), range(16)))
    assert len(secrets) == 1
    kept = Path(".hermes/relay.secret")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert {path.name for path in kept.parent.iterdir()} == {".gitignore", "relay.secret"}


def test_a_secret_that_cannot_be_kept_is_told(project: Path) -> None:
    Path(".hermes").write_text("in the way")
    with pytest.raises(ConfigError, match=r"relay\.secret: the relay's secret cannot be kept there"):
        relay_secret(Settings.read())


def test_doctor_over_a_redis_without_aof_and_without_workers(online: Path, cli: Cli) -> None:
    said = cli("doctor", "--json")
    found = {check["check"]: check["status"] for check in json.loads(said.out)["checks"]}
    assert said.code == 0
    assert found["state"] == found["broker"] == found["agents"] == "ok"
    assert found["durability"] == found["workers"] == found["guarantee"] == "warning"
    details = [check["detail"] for check in json.loads(said.out)["checks"]]
    assert "async: 0 tasks for 0 slots, process: 0 tasks for 0 slots; 0 wait for their turn" in details
    assert any("no worker serves the process lane: its tasks wait" in detail for detail in details)
    assert any("none sweeps" in detail for detail in details)


def test_doctor_tells_how_full_the_pools_are(
    online: Path, cli: Cli, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_CONFIG", str(online / "agents.yaml"))
    for lane, size in (("process", "1-3"), ("async", "37")):
        spawn([*HERMES, "worker", "--lane", lane, "--concurrency", size]).wait_for_log("ready.")
    wait_until(lambda: "3 slots; 0 wait" in cli("doctor").out)  # what the workers say of themselves
    rows = [line.split("\t") for line in cli("doctor").out.splitlines()]
    facts = {row[0]: row[1:] for row in rows}
    assert facts["gate"] == [
        "ok",
        "async: 0 tasks for 37 slots, process: 0 tasks for 3 slots; 0 wait for their turn",
    ]
    assert facts["janitor"][0] == "ok"
    pools = [row[1:] for row in rows if row[0] == "pool"]
    assert [status for status, _ in pools] == ["ok", "ok"]
    assert re.fullmatch(r"async-\w+@\S+: 0 of 37 slots busy", pools[0][1])
    assert re.fullmatch(r"process-\w+@\S+: 0 of 1 slots busy, may grow to 3", pools[1][1])


def test_doctor_without_any_server_starts_none(project: Path, cli: Cli) -> None:
    said = cli("doctor")
    assert said.code == 0
    assert "state\twarning\tthe embedded Redis does not run" in said.out
    assert not Path(".hermes").exists()


def test_doctor_tells_what_is_in_the_way_of_the_private_folder(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".hermes").touch()
    said = cli("doctor")
    assert said.code == 1
    assert f"state folder\tbroken\t{project / '.hermes'} is not a folder; make it yours to write" in said.out
    Path(".hermes").unlink()
    assert cli("doctor").code == 0
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert f"state folder\tbroken\t{project} cannot be written; make it" in cli("doctor").out
    Path("agents.yaml").write_text(f"task_queue: 'redis://127.0.0.1:1/0'\nrelay: {{secret: {'x' * 40}}}\n")
    assert "state folder" not in cli("doctor").out
    assert not Path(".hermes").exists()


def test_doctor_tells_why_the_embedded_redis_did_not_start(project: Path, cli: Cli) -> None:
    assert cli("task", "list").code == 0  # starts it, and stops it
    assert "state\twarning\tthe embedded Redis does not run; `hermes-async up` starts it" in cli("doctor").out
    [log] = Path(".hermes/redis/appendonlydir").glob("*.incr.aof")
    log.write_text("this is none\r\n" * 5)
    assert cli("task", "list").code == 69
    said = cli("doctor")
    assert said.code == 1
    assert "state\tbroken\tthe embedded Redis could not go on: Bad file format reading the append" in said.out


def test_doctor_tells_the_project_s_relay_from_another_s(
    online: Path, cli: Cli, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def relay(project: Path) -> tuple[Process, str]:
        env = {"HERMES_CONFIG": str(project / "agents.yaml")}
        process = spawn([*HERMES, "relay", "--port", "0"], env, name=project.name)
        process.wait_for_log("relay on")
        return process, process.log.split("relay on")[1].strip()

    (online / "other").mkdir()
    (online / "other" / "agents.yaml").write_text((online / "agents.yaml").read_text())
    _, other_s = relay(online / "other")
    monkeypatch.setenv("HERMES_RELAY__PORT", other_s.rpartition(":")[2])
    foreign = f"relay\twarning\tthe one at {other_s} refuses this project's token; start this one's with"
    assert foreign in cli("doctor").out  # no secret was made here yet
    process, address = relay(online)
    assert f"relay\tok\t{address}, reading" in cli("doctor").out
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert foreign in cli("doctor").out


def test_doctor_with_redis_down(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_TASK_QUEUE", "redis://127.0.0.1:1/0")
    said = cli("doctor")
    assert said.code == 1
    assert "guarantee\tbroken\tno task can be accepted" in said.out


def test_check_loads_the_tools_of_every_agent(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    (project / "my_tools.py").write_text("def price(item: str) -> str: ...\n")
    tools = "[web_search, arxiv_api, 'my_tools:price']"
    (project / "agents.yaml").write_text(f"agents: {{thinker: {{model: m, tools: {tools}}}}}")
    assert cli("agents", "check").code == 0
    (project / "agents.yaml").write_text("agents: {thinker: {model: m, tools: ['my_tools:prise']}}")
    said = cli("agents", "check")
    assert said.code == 1
    assert "agent 'thinker': tool 'my_tools:prise': module 'my_tools' has no 'prise'; did you" in said.err
    (project / "agents.yaml").write_text("agents: {thinker: {model: m, tools: [arxiv]}}")
    said = cli("agents", "check")
    assert said.code == 2
    assert "agents.yaml:1:38: no tool is named 'arxiv'; did you mean 'arxiv_api'?" in said.err
    monkeypatch.setitem(sys.modules, "arxiv", None)
    monkeypatch.delitem(sys.modules, "hermes_async.adapters.tools.arxiv_api")
    (project / "agents.yaml").write_text("agents: {thinker: {model: m, tools: [arxiv_api]}}")
    said = cli("agents", "check")
    assert said.code == 1
    assert "tool 'arxiv_api' needs the package arxiv; run `pip install 'hermes_async[llm]'`" in said.err


def test_an_agent_without_a_function_is_a_note_and_no_fault(project: Path, cli: Cli) -> None:
    (project / "agents.yaml").write_text('agents: {thinker: {instructions: "Think."}}')
    said = cli("agents", "check")
    assert said.code == 0
    assert "note  agents.thinker cannot run: it has neither `run` nor `model`" in said.out
    assert "ok" not in said.out
    refused = cli("task", "create", "-", "thinker", "--async")
    assert refused.code == 2
    assert "agent 'thinker' cannot run: give it `run: package.module:function` or `model: …`" in refused.err


def test_a_declared_agent_without_a_key_is_told_by_check_and_by_dispatch(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    (project / "agents.yaml").write_text('agents: {thinker: {model: "gpt-4o-mini"}}')
    cure = "agent 'thinker': model 'gpt-4o-mini' needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a"
    for command in (("agents", "check"), ("task", "create", "-", "thinker", "--async")):
        said = cli(*command)
        assert (said.code, said.out) == (1 if command[1] == "check" else 2, "")
        assert said.err.splitlines()[-1].startswith(f"hermes-async: {cure}")
        assert "Traceback" not in said.err
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    said = cli("agents", "check")
    assert (said.code, said.out) == (0, "ok    thinker: model gpt-4o-mini, async lane\n")


def test_a_limit_on_the_cost_of_a_model_without_a_price_is_a_fault(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    agents = "agents: {thinker: {model: %s, limits: {cost_usd: 0.5}}}"
    (project / "agents.yaml").write_text(agents % "my-own-model")
    said = cli("agents", "check")
    assert said.code == 1
    assert "agent 'thinker': model 'my-own-model' has no known price, so limits.cost_usd cannot" in said.err
    (project / "agents.yaml").write_text(agents % "gpt-4o-mini")
    assert cli("agents", "check").code == 0


def test_a_conversation_that_cannot_talk_here_is_noted(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    talks = "agents: {parent: {type: conversational, model: %s, limits: {cost_usd: 0.5}}}"
    (project / "agents.yaml").write_text(talks % "gpt-4o-mini")
    said = cli("agents", "check")
    assert said.code == 0
    assert (
        "note  agents.parent cannot talk here: model 'gpt-4o-mini' needs a key: set OPENAI_API_KEY"
        in said.out
    )
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert "note" not in cli("agents", "check").out
    (project / "agents.yaml").write_text(talks % "my-own-model")
    said = cli("agents", "check")
    assert said.code == 1
    assert "agent 'parent': model 'my-own-model' has no known price, so limits.cost_usd cannot" in said.err
    monkeypatch.setattr("hermes_async.adapters.model.names.find_spec", lambda name: None)
    said = cli("agents", "check")
    assert said.code == 1
    assert "agent 'parent': model 'my-own-model' needs an optional package: pip install" in said.err


@pytest.mark.parametrize(
    ("variables", "status", "detail"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "ok", "as the OTEL_ variables say"),
        ({"OTEL_TRACES_EXPORTER": "nowhere"}, "broken", "no exporter 'nowhere' is installed"),
    ],
)
def test_doctor_tells_whether_spans_can_be_sent(
    project: Path, variables: dict[str, str], status: str, detail: str
) -> None:
    done = subprocess.run(
        [*HERMES, "doctor", "--json"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["traces"]["status"] == status
    assert detail in checks["traces"]["detail"]


def test_doctor_says_nothing_of_spans_that_nobody_wants(project: Path, cli: Cli) -> None:
    assert "traces" not in cli("doctor").out


def test_no_command_shows_a_key(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-hush")
    agents = "a: {model: m, api_key: '${MY_KEY}'}, b: {type: conversational, model: m, api_key: '${MY_KEY}'}"
    (project / "agents.yaml").write_text(f"agents: {{{agents}}}")
    for command in (("agents", "list"), ("agents", "check"), ("agents", "list", "--json"), ("doctor",)):
        said = cli(*command)
        assert "hush" not in said.out + said.err
        assert said.code == 0 or command == ("doctor",), said.err

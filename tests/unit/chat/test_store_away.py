"""A chat whose Redis goes away and comes back: it talks on, and hears of everything afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hermes_async.bootstrap import connect
from hermes_async.settings import Settings
from tests.support.model import ScriptedModel, call, say
from tests.support.servers import RedisServer, wait_until_async
from tests.unit.chat.conftest import chatting, rest

pytestmark = pytest.mark.anyio

AGENTS = """
agents:
  parent:
    type: conversational
    model: scripted
    subagents: [{id: echo}]
  echo: {run: "examples.basics:echo"}
"""


async def test_it_talks_on_without_its_redis(model: ScriptedModel, tmp_path: Path) -> None:
    (tmp_path / "agents.yaml").write_text(AGENTS)
    server = RedisServer(tmp_path / "redis", aof=True).start()
    try:
        settings = Settings.read(tmp_path / "agents.yaml", {"HERMES_TASK_QUEUE": server.url})
        async with connect(settings) as hermes, chatting(hermes, folder=tmp_path) as chat:
            model.then(say("hello"), call("list"), say("I cannot look."), say("I am here."))
            assert await chat.say("hello") == "hello"
            server.stop()
            assert await chat.say("what runs?") == "I cannot look."
            assert "error" in json.loads(model.requests[2].said("tool")[-1])
            assert await chat.say("are you there?") == "I am here."
            server.start()
            model.then(call("delegate", subagent="echo", input="x"), say("started"), say("I have heard."))
            assert await chat.say("start") == "started"
            await hermes.session("chat").send_message("from elsewhere")
            await wait_until_async(lambda: chat.last_answer == "I have heard.", timeout=20)
            assert "from elsewhere" in model.requests[-1].last
            await rest(chat)
    finally:
        server.kill()

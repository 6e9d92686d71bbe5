"""The examples of frameworks, run as programs against a scripted model over real HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from hermes_async.core.delegation import IN_A_CHAT, NAMES
from tests.support.delegating import delegating
from tests.support.model import ScriptedModel
from tests.support.servers import ROOT

#: Each with the packages that it needs; those that are no extra of ours may be missing.
EXAMPLES = {
    "06_pydantic_ai.py": (),
    "07_function_calling.py": (),
    "08_openai_agents.py": ("openai-agents",),
    "09_langchain.py": ("langchain", "langchain-openai"),
}
#: Lines of each that are not blank.
LONGEST = 30


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_framework_delegates_and_hears_of_it(name: str) -> None:
    missing = [package for package in EXAMPLES[name] if not _is_installed(package)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    with ScriptedModel(script=delegating) as model:
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / name],
            env={**os.environ, **model.env},
            capture_output=True,
            text=True,
            timeout=50,
        )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"I have started t\d\d-\w{26}\. What else\?", first)
    assert second == "It has ended: tea is hot water with leaves"
    asked, told, woken = model.requests
    assert tuple(asked.tools) == NAMES
    assert asked.said("system") == [IN_A_CHAT]
    delegate = asked.body["tools"][0]["function"]["parameters"]["properties"]
    assert (delegate["subagent"]["enum"], delegate["input"]["type"]) == (["research"], "string")
    assert json.loads(told.last)["status"] == "queued"
    assert woken.messages[-1]["role"] == "user" and woken.last.startswith("<subagent_news>\n")


def _is_installed(package: str) -> bool:
    """By its own name: a module that is called `agents` may be anybody's."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_short(name: str) -> None:
    text = (ROOT / "examples" / name).read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= LONGEST


def test_what_openai_agents_tells_its_maker_is_switched_off() -> None:
    assert "set_tracing_disabled(True)" in (ROOT / "examples/08_openai_agents.py").read_text()

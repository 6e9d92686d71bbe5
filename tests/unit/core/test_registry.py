"""Names of agents: decorated, declared, and as a parent calls them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.registry import Registry, collect
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec, Webhook
from hermes_async.domain.errors import ConfigError, UnknownAgent
from hermes_async.domain.task import Lane, Task
from tests.support.values import make_task

BROKEN = {
    "missing_dependency": "\nimport there_is_no_such_module",
    "syntax_fault": "def (",
    "import_fault": "raise RuntimeError('no key')",
    "ending": "import sys\nsys.exit(4)",
    "silently_ending": "raise SystemExit",
    "in_pythons_own": "import json\n\njson.loads('')",
    "in_another": "\nimport syntax_fault",
    "in_a_package": "import installed",
    "site-packages/installed": "\n\nraise OSError('not built')",
}


@subagent(timeout=9, retry_limit=1)
async def research_agent(ctx: TaskContext, topic: str) -> str:
    return topic


@subagent
async def writer(ctx: TaskContext) -> str:
    return ""


def plain(ctx: TaskContext) -> int:
    return 1


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good module, an empty one, and some that cannot be imported."""
    good = ModuleType("good_agents")
    vars(good).update(research=research_agent, plain=plain, number=3)
    monkeypatch.setitem(sys.modules, "good_agents", good)
    monkeypatch.setitem(sys.modules, "empty_agents", ModuleType("empty_agents"))
    (tmp_path / "site-packages").mkdir()
    for name, text in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


def registry(**agents: AgentSpec) -> Registry:
    return Registry(AgentsConfig(agents=agents), [research_agent, writer])


def boss(*subagents: SubagentSpec) -> AgentSpec:
    return AgentSpec(type="conversational", subagents=subagents)


def test_without_a_parent_a_name_is_an_agent() -> None:
    assert registry().resolve("writer", None) is writer


@pytest.mark.parametrize("parent", ["unknown", "silent", "writer"])
def test_a_parent_that_declares_nothing_may_invoke_any_agent(parent: str) -> None:
    known = registry(silent=boss(), declared=AgentSpec(run="good_agents:plain"))
    assert known.resolve("writer", parent) is writer
    assert known.resolve("declared", parent).function is plain


def test_what_the_parent_says_lies_over_what_the_agent_says() -> None:
    use = SubagentSpec(id="research", agent="research_agent", timeout=3)
    resolved = registry(boss=boss(use)).resolve("research", "boss")
    assert resolved.function is research_agent.function
    assert (resolved.name, resolved.spec.id, resolved.spec.agent) == (
        "research_agent",
        "research",
        "research_agent",
    )
    assert (resolved.spec.timeout, resolved.spec.retries) == (3, 1)


def test_a_parent_has_only_the_subagents_that_it_declares() -> None:
    known = registry(boss=boss(SubagentSpec(id="research", agent="research_agent")))
    with pytest.raises(UnknownAgent, match="'boss' has no subagent 'reserach'; did you mean 'research'"):
        known.resolve("reserach", "boss")
    with pytest.raises(UnknownAgent, match="'boss' has no subagent 'writer'"):
        known.resolve("writer", "boss")


@pytest.mark.parametrize(
    ("name", "hint"), [("writr", "did you mean 'writer'"), ("xyz", "known are: research_agent, writer")]
)
def test_an_unknown_agent_is_told_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UnknownAgent, match=f"no agent '{name}'; {hint}"):
        registry().resolve(name, None)


def test_a_declared_function_is_imported_once() -> None:
    known = registry(counter=AgentSpec(run="good_agents:plain", pool="async"))
    assert (known.agent("counter").name, known.agent("counter").function) == ("counter", plain)
    assert known.agent("counter").lane is Lane.ASYNC
    assert known.agent("counter") is known.agent("counter")


def test_the_file_says_the_lane_of_a_decorated_agent_too() -> None:
    known = registry(writer=AgentSpec(pool="process"))
    assert (known.agent("writer").lane, writer.lane) == (Lane.PROCESS, Lane.ASYNC)


def test_two_functions_of_one_name_are_refused() -> None:
    @subagent(name="writer")
    def another(ctx: TaskContext) -> None: ...

    Registry(AgentsConfig(), [writer, writer.options(timeout=1)])
    with pytest.raises(ConfigError) as caught:
        Registry(AgentsConfig(), [writer, another])
    both = f"{__name__}:writer and {__name__}:{another.function.__qualname__}"
    assert str(caught.value) == f"two agents are called 'writer': {both}; give one another name"


def test_a_declared_subagent_keeps_its_options() -> None:
    found = registry(other=AgentSpec(run="good_agents:research")).agent("other")
    assert (found.name, found.spec.agent, found.spec.timeout) == ("other", "other", 9)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("nowhere:run", "cannot import 'nowhere': No module named"),
        (
            "missing_dependency:run",
            "'missing_dependency': missing_dependency.py:2: No module named 'there_is_no",
        ),
        ("import_fault:run", "cannot import 'import_fault': import_fault.py:1: RuntimeError: no key$"),
        ("syntax_fault:run", "cannot import 'syntax_fault': syntax_fault.py:1: SyntaxError: [^(]*$"),
        ("ending:run", "cannot import 'ending': ending.py:2: SystemExit: 4$"),
        ("silently_ending:run", "cannot import 'silently_ending': silently_ending.py:1: SystemExit$"),
        ("in_pythons_own:run", "cannot import 'in_pythons_own': in_pythons_own.py:3: JSONDecodeError: Exp"),
        ("in_another:run", "cannot import 'in_another': syntax_fault.py:1: SyntaxError"),
        ("in_a_package:run", "cannot import 'in_a_package': in_a_package.py:1: OSError: not built$"),
        ("installed:run", "cannot import 'installed': site-packages/installed.py:3: OSError: not built$"),
        ("good_agents:resaerch", "has no 'resaerch'; did you mean 'research'"),
        ("good_agents:number", "good_agents:number is not a function"),
    ],
)
def test_a_function_that_cannot_be_had_is_a_configuration_error(run: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^agent 'x': .*{told}"):
        registry(x=AgentSpec(run=run)).agent("x")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (AgentSpec(type="conversational"), "it is a conversation"),
        (AgentSpec(model="gpt"), "give it `run: package.module:function` or `model: …`"),
        (AgentSpec(), "give it `run: package.module:function` or `model: …`"),
    ],
)
def test_an_agent_without_a_function_cannot_run(spec: AgentSpec, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        registry(x=spec).agent("x")


def test_all_that_can_run_is_listed() -> None:
    known = registry(boss=boss(), counter=AgentSpec(run="good_agents:plain"), someday=AgentSpec(model="gpt"))
    assert list(known) == ["research_agent", "writer", "counter", "someday"]
    assert [agent.name for agent in known.runnable()] == ["research_agent", "writer", "counter"]


def test_the_decorated_functions_of_a_module_are_collected() -> None:
    assert collect("good_agents") == [research_agent]


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("nowhere", "cannot import module 'nowhere': No module named"),
        ("import_fault", "cannot import module 'import_fault': import_fault.py:1: RuntimeError: no key"),
        ("ending", "cannot import module 'ending': ending.py:2: SystemExit: 4"),
        ("empty_agents", "has no function decorated with @subagent"),
    ],
)
def test_a_module_without_agents_is_a_configuration_error(module: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        collect(module)


def test_making_a_registry_imports_nothing() -> None:
    names: Any = Registry(AgentsConfig(agents={"x": AgentSpec(run="nowhere:run")}))
    assert list(names) == ["x"]


HERE, THERE = (
    Webhook(url=f"https://{host}.example/", secret="a secret that is long enough") for host in "ab"
)


@subagent(webhook=HERE)
async def posted(ctx: TaskContext) -> str:
    return ""


def of(name: str, parent: str | None, agent: str = "") -> Task:
    task = make_task(agent=agent or name)
    birth = task.birth.model_copy(update={"parent": parent, "subagent": name})
    return task.model_copy(update={"birth": birth})


def test_a_webhook_is_found_with_its_secret_by_parent_and_subagent() -> None:
    known = Registry(
        AgentsConfig(
            agents={
                "boss": boss(
                    SubagentSpec(id="file", agent="posted", webhook=THERE),
                    SubagentSpec(id="decorated", agent="posted"),
                    SubagentSpec(id="silent", agent="posted", webhook=None),
                ),
                "broken": AgentSpec(run="syntax_fault:run"),
            }
        ),
        [posted, writer],
    )
    assert known.webhook(of("file", "boss", "posted")) is THERE
    assert known.webhook(of("decorated", "boss", "posted")) is HERE
    assert known.webhook(of("silent", "boss", "posted")) is None
    assert known.webhook(of("posted", "boss")) is HERE
    assert known.webhook(of("posted", None)) is HERE
    assert known.webhook(of("posted", "nobody")) is HERE
    assert known.webhook(of("writer", None)) is None
    assert known.webhook(of("unknown", None)) is None
    assert known.webhook(of("broken", None)) is None

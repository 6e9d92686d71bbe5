"""agents.yaml: the article's file as it is, every way to get it wrong, and bounds that nothing escapes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes_async.adapters.agents_file import json_schema, load, parse
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import ConfigError

CORPUS = Path(__file__).parents[2] / "corpus"
ARTICLE = CORPUS / "article.yaml"
MALFORMED = sorted((CORPUS / "agents_yaml").glob("*.yaml"))
LINES = (CORPUS / "agents_yaml/expected.txt").read_text().splitlines()
EXPECTED = {line.split(":", 1)[0]: line for line in LINES}
FUZZ = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

FULL = """
version: "2.4"
agents:
  boss:
    type: conversational
    session: {lock: none}
    subagents:
      - id: research
        async: false
        timeout: null
        queue_timeout: 60
        idle_timeout: 5.5
        retry: &retry {initial: 1, factor: 2, maximum: 30, jitter: false, non_retryable: [ValueError]}
        priority: 9
        callbacks: {on_progress: shown}
        webhook: {url: "https://example.com/hook", secret: "${SECRET:-a secret of plain text, long enough}"}
        fallback: writer
        idempotency: {scope: parent, ttl: 60}
      - {id: draft, agent: writer, retry_limit: 3, retry: *retry}
  research:
    run: my_agents.research:run
    pool: process
  writer:
    model: gpt-4o-mini
    instructions: |
      Write $${plain} text.
    tools: [web_search]
    limits: {requests: 5, tool_calls: 0, total_tokens: 1000, cost_usd: 0.5, seconds: 60}
async_worker_pool: {min_workers: 1, max_workers: 2, scale_threshold: 1, slots_per_worker: 10, task_queue: "redis://q"}
state: redis://s
relay: {host: 0.0.0.0, port: "${PORT:-9000}", secret: s}
limits: {max_depth: 2, max_running: 10, max_queued: 100}
"""


def error_of(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        act()
    return str(caught.value)


def test_the_article_loads_as_it_is() -> None:
    config = load(ARTICLE, {})
    research = config.subagent("parent_agent", "research")
    assert config.version == "2.4"
    assert config.agent("parent_agent").type == "conversational"
    assert config.agent("parent_agent").session.lock == "ordered"
    assert research.agent == "research_agent"
    assert (research.async_, research.timeout, research.retries) == (True, 120, 2)
    assert (research.concurrency_limit, research.model) == (5, "gpt-4o-mini")
    assert research.callbacks.on_complete == "research_callback_handler"
    assert research.callbacks.on_failure == "failure_notifier"
    assert config.agent("research_agent").tools == ("web_search", "arxiv_api")
    pool = config.async_worker_pool
    assert (pool.min_workers, pool.max_workers, pool.scale_threshold) == (2, 10, 0.7)
    assert config.task_queue == "redis://redis.default:6379/0"


def test_everything_that_may_be_said() -> None:
    config = parse(FULL, "agents.yaml", {"PORT": "9001"})
    research, draft = config.agent("boss").subagents
    assert (research.agent, research.timeout, research.fallback) == ("research", None, "writer")
    assert research.webhook is not None
    assert research.webhook.secret == "a secret of plain text, long enough"
    assert draft.retry == research.retry
    assert config.agent("writer").instructions == "Write ${plain} text.\n"
    assert (config.task_queue, config.state, config.relay.port) == ("redis://q", "redis://s", 9001)


def test_a_variable_takes_the_type_of_its_place() -> None:
    text = (
        "relay:\n  port: ${PORT}\n  secret: ${SECRET}\nlimits: {max_depth: '${D:-3}'}\nversion: '${V:-2.4}'"
    )
    config = parse(text, "agents.yaml", {"PORT": "1234", "SECRET": "123"})
    assert (config.relay.port, config.relay.secret) == (1234, "123")
    assert (config.limits.max_depth, config.version) == (3, "2.4")


def test_a_fallback_is_resolved_like_an_agent() -> None:
    text = "agents: {a: {subagents: [{id: b, fallback: c}]}, b: {}, c_agent: {}}"
    assert parse(text, "agents.yaml", {}).subagent("a", "b").fallback == "c_agent"


def test_models_that_read_alike_are_two_fallbacks() -> None:
    models = ["openai:gpt-4o", "ollama:a/b", "ollama:a-b", "ollama:a:b", f"x:{'a' * 150}", f"x:{'a' * 151}"]
    uses = ", ".join(f"{{id: s{n}, agent: r, fallback: '{model}'}}" for n, model in enumerate(models))
    config = parse(f"agents: {{boss: {{subagents: [{uses}]}}, r: {{model: m}}}}", "f", {})
    fallbacks = [config.agent(use.fallback or "") for use in config.agents["boss"].subagents]
    assert [agent.model for agent in fallbacks] == models
    assert fallbacks[0].name == "r.openai-gpt-4o"
    assert max(len(agent.name) for agent in fallbacks) == 100


def test_an_agent_in_python_need_not_be_declared() -> None:
    text = "agents: {boss: {subagents: [{id: research}]}}"
    assert (
        parse(text, "f", {}, known_agents={"research_agent"}).subagent("boss", "research").agent
        == "research_agent"
    )


def test_without_a_file_there_are_the_defaults() -> None:
    assert load(None, {}) == AgentsConfig()
    assert load(None, {"HERMES_RELAY__PORT": "1"}).relay.port == 1


@pytest.mark.parametrize("path", MALFORMED, ids=lambda path: path.stem)
def test_each_mistake_has_one_exact_message(path: Path) -> None:
    assert error_of(lambda: parse(path.read_bytes(), path.name, {})) == EXPECTED[path.name]


def test_the_corpus_is_complete() -> None:
    assert set(EXPECTED) == {path.name for path in MALFORMED}
    assert len(MALFORMED) >= 60


def test_a_missing_file() -> None:
    message = error_of(lambda: load(Path("nowhere/agents.yaml"), {}))
    assert message.startswith(
        "nowhere/agents.yaml: there is no such file; create it with a line such as `agents:"
    )


def test_a_folder(tmp_path: Path) -> None:
    message = error_of(lambda: load(tmp_path, {}))
    assert message == f"{tmp_path}: cannot be read (Is a directory); check the path and its permissions"


def test_unknown_tools_and_callbacks() -> None:
    message = error_of(lambda: load(ARTICLE, {}, known_tools={"web_serch", "arxiv_api"})).split(".yaml:")[1]
    assert message == "20:9: no tool is named 'web_search'; did you mean 'web_serch'?"
    message = error_of(lambda: load(ARTICLE, {}, known_callbacks=["research_handler"])).split(".yaml:")[1]
    assert message == (
        "14:24: no callback is named 'research_callback_handler'; did you mean 'research_handler'?"
    )
    message = error_of(lambda: load(ARTICLE, {}, known_callbacks=["research_callback_handler"]))
    assert message.split(".yaml:")[1] == (
        "15:23: no callback is named 'failure_notifier'; define it in hermes_callbacks/ beside agents.yaml"
    )
    assert load(ARTICLE, {}, known_tools=("web_search", "arxiv_api"))


def giants(folder: Path) -> list[Path]:
    """Write the files that are too much: bombs, depth, width and size."""
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]" for at in range(1, 12)]
    contents = {
        "bomb": "\n".join(bomb),
        "key_bomb": "\n".join(line.replace("[", "{k: [").replace("]", "]}") for line in bomb),
        "ten_megabytes": "agents: {}\n" + "# padding\n" * 1_000_000,
        "deep_flow": "agents: " + "[" * 500_000,
        "deep_block": "\n".join(" " * at + "a:" for at in range(1_000)),
        "wide": "tools: [" + "x," * 400_000 + "]",
        "wide_table": "\n".join(f"k{at}: 1" for at in range(90_000)),
        "long_text": "version: '" + "9" * 900_000 + "'",
        "long_number": "relay: {port: " + "9" * 900_000 + "}",
        "long_key": "k" * 900_000 + ": 1",
        "long_anchor": "a: *" + "k" * 900_000,
        "question_marks": "? " * 400_000,
        "many_anchors": "\n".join(f"- &a{at} x" for at in range(60_000)),
        "many_faults": "agents:\n" + "\n".join(f"  {at}: {{typ: x}}" for at in range(12_000)),
        "many_bad_names": "agents: {" + ",".join(f"{at}: {{}}" for at in range(24_990)) + "}",
        "many_unknown_keys": "\n".join(f"k{at}: 1" for at in range(24_990)),
        "many_bad_entries": "agents: {a: {subagents: [" + "{}," * 49_990 + "]}}",
        "many_bad_texts": "agents: {a: {tools: [" + "1," * 49_990 + "]}}",
        "many_unset": "agents: {a: {tools: [" + "'${A}'," * 49_990 + "]}}",
        "variables": "version: '" + "${PATH}" * 100_000 + "'",
        "open_variables": "version: '" + "${" * 400_000 + "'",
        "one_line": "a: {" * 200_000,
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(content)
    return sorted(folder.glob("*.yaml"))


MEASURE = """
import json, sys, time
from pathlib import Path
from hermes_async.adapters.agents_file import load
from hermes_async.domain.errors import ConfigError

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

for name in sys.stdin.read().splitlines():
    began = time.process_time()
    try:
        load(Path(name), {"PATH": "/bin:" * 1000})
        message = ""
    except ConfigError as error:
        message = str(error)
    print(json.dumps([name, message, time.process_time() - began, peak()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_every_mistake_is_told_within_a_second_of_cpu_and_100_megabytes(tmp_path: Path) -> None:
    files = [*giants(tmp_path), *MALFORMED]
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input="\n".join(map(str, files)),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(rows) == len(files)
    for name, message, seconds, megabytes in rows:
        assert message.startswith(f"{name}:"), name
        assert len(message) < 600, message
        assert seconds < 1, message
        assert megabytes < 100, message


def loads_or_is_refused(text: str | bytes) -> None:
    try:
        assert isinstance(parse(text, "agents.yaml", {}), AgentsConfig)
    except ConfigError as error:
        assert str(error).startswith("agents.yaml:")


@FUZZ
@given(st.text())
def test_any_text(text: str) -> None:
    loads_or_is_refused(text)


@FUZZ
@given(st.text(alphabet="agents: {}[]-&*!|>'\"%@#?,\n\t~0.$relayport"))
def test_any_text_that_looks_like_yaml(text: str) -> None:
    loads_or_is_refused(text)


@FUZZ
@given(st.binary())
def test_any_bytes(raw: bytes) -> None:
    loads_or_is_refused(raw)


@FUZZ
@given(st.data())
def test_any_change_of_a_good_file(data: st.DataObject) -> None:
    text = FULL
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + data.draw(st.text(max_size=5)) + text[end:]
    loads_or_is_refused(text)


WORDS = (
    "agents version relay limits task_queue async_worker_pool session session.lock lock subagents id agent"
)
KEYS = st.sampled_from(WORDS.split(" ")) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)
SEGMENTS = "AGENTS BOSS SUBAGENTS RESEARCH TIMEOUT RELAY PORT TOOLS SESSION LOCK X"
VARIABLES = st.lists(st.sampled_from(SEGMENTS.split(" ")), max_size=5).map(
    lambda parts: "HERMES_" + "__".join(parts)
)


@FUZZ
@given(st.dictionaries(KEYS, JSON, max_size=5))
def test_any_values_at_any_place(value: object) -> None:
    loads_or_is_refused(json.dumps(value))


@FUZZ
@given(
    st.dictionaries(VARIABLES, st.text(), max_size=3),
    st.sampled_from(
        [FULL, "{}", "agents: []", "agents: {boss: 5}", "relay: []", "agents: {boss: {subagents: {}}}"]
    ),
)
def test_any_environment(environ: dict[str, str], text: str) -> None:
    try:
        parse(text, "agents.yaml", environ)
    except ConfigError as error:
        assert str(error).startswith(("agents.yaml:", "HERMES_"))


def test_the_schema_knows_every_key() -> None:
    schema = json_schema()
    parts = schema["$defs"]
    assert schema["$schema"].endswith("2020-12/schema")
    assert "session.lock" in parts["AgentSpec"]["properties"]
    assert "name" not in parts["AgentSpec"]["properties"]
    assert "async" in parts["SubagentSpec"]["properties"]
    assert "task_queue" in parts["PoolSpec"]["properties"]
    assert schema["additionalProperties"] is False
    json.dumps(schema)

"""What the documents say is so: every block runs, every table is complete, every link leads somewhere."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import jwt
import pytest
from pydantic_core import PydanticUndefined

from hermes_async.adapters.agents_file import parse
from hermes_async.adapters.agents_file.shape import ROOT as SHAPE
from hermes_async.adapters.agents_file.shape import Shape
from hermes_async.adapters.logs import JsonLines, ids_of
from hermes_async.adapters.redis_store import LOG_LENGTH
from hermes_async.adapters.tools import ToolNames
from hermes_async.adapters.tools.body import LONGEST as LONGEST_BODY
from hermes_async.adapters.tools.duckduckgo import AT_ONCE as SEARCHES
from hermes_async.adapters.tools.web_fetch import ERRAND as FETCH_ERRAND
from hermes_async.adapters.tools.web_fetch import HOPS
from hermes_async.adapters.tools.web_fetch import TIMEOUT as FETCH_TIMEOUT
from hermes_async.adapters.webhook.breaker import PAUSE, THRESHOLD
from hermes_async.adapters.webhook.message import LONGEST, body
from hermes_async.adapters.webhook.schedule import DELAYS
from hermes_async.adapters.webhook.sender import TIMEOUT
from hermes_async.cli.main import hermes_async
from hermes_async.core.ledger import Backlog
from hermes_async.core.metrics import metrics as empty_metrics
from hermes_async.core.ports import Traffic
from hermes_async.core.threads import MOST_STRAYS
from hermes_async.core.tool import MAX_CHARS
from hermes_async.core.tool import TIMEOUT as TOOL_TIMEOUT
from hermes_async.domain import events
from hermes_async.domain.errors import ConfigError, UnknownTask
from hermes_async.domain.failure import Reason
from hermes_async.domain.secret import SHORTEST
from hermes_async.domain.spec import Spec
from hermes_async.domain.task import TaskResult
from hermes_async.relay import commands
from hermes_async.relay.auth import AUDIENCE, SHORTEST_SECRET, mint
from hermes_async.relay.http import http_app
from hermes_async.relay.http.metrics import page
from hermes_async.relay.http.problem import STATUSES
from hermes_async.relay.http.sse import HEARTBEAT
from hermes_async.relay.http.strict import BODY_BYTES, BODY_TIME
from hermes_async.relay.line import Limits
from hermes_async.relay.sockets import READ_BYTES
from hermes_async.relay.tail import BATCH_BYTES, BATCH_EVENTS
from hermes_async.relay.wire import MESSAGE_BYTES, Batch
from hermes_async.settings import VARIABLES
from tests.support.delegating import delegating
from tests.support.documents import DOCUMENTS, Block, Place, blocks, prose, tables
from tests.support.model import ScriptedModel
from tests.support.servers import ROOT
from tests.unit.adapters.webhook.conftest import make_call

AGENTS_YAML, WIRE, HTTP, METRICS = (
    ROOT / "docs" / name for name in ("agents-yaml.md", "wire.md", "http.md", "metrics.md")
)
#: What a relay counts.
COUNTS = (
    *("sockets", "subscriptions", "evictions_total", "lag_events", "ack_wait_seconds"),
    "requests_lasting",
)
BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]

#: Blocks that nothing runs, by document and section, and why.
NOT_RUN = {
    ("README.md", "A chat, and agents without code"): "a picture; tests/acceptance/test_chat.py plays it",
    ("README.md", "How a task travels"): "a picture",
    ("docs/architecture.md", "The house"): "a picture",
    ("docs/chat.md", "On a terminal"): "a picture; tests/acceptance/test_chat.py plays it",
    ("docs/redis.md", "A user of its own"): "a rule; tests/support/guarded.py makes a user of it",
    ("docs/relay.md", "Behind a proxy"): "the configuration of nginx",
    ("docs/metrics.md", "For people"): "as a terminal shows it",
    ("docs/tracing.md", "A waterfall"): "as a terminal shows it",
    ("docs/tracing.md", "Spans without any other service"): "as a terminal shows it",
    ("docs/tracing.md", "Logs"): "a line of a log",
}
#: Played in an empty folder with an `up` of its own; other consoles are played in a copy of the repository.
FROM_NOTHING = ("README.md", "Fifteen lines")


def section(block: Block) -> tuple[str, str]:
    return block.file, block.section


def kind(block: Block) -> str | None:
    """Which of the tests below is about a block; None: it would go unnoticed."""
    if section(block) in NOT_RUN and block.language in ("text", "nginx"):
        return "not run"
    if block.file == "docs/browser.md" and block.language == "html":
        return "browser"  # tests/unit/relay/test_browser.py runs it
    if block.language == "text" and block.text.startswith("agents.yaml:"):
        return "error"
    if block.language == "text" and section(block) == ("README.md", "Two commands"):
        return "demo"
    if block.language in ("console", "sh") and all(re.findall(r"^(?:\$ )?(bin/)?", block.text.strip(), re.M)):
        return "bin"
    if block.language == "python" and not block.file_name:
        return "program"
    kinds = {"console": "played", "python": "played", "yaml": "yaml", "json": "json"}
    return kinds.get(block.language)


def of_kind(wanted: str) -> Any:
    """The parameters of a test: blocks."""
    found = [block for block in BLOCKS if kind(block) == wanted]
    return pytest.mark.parametrize("block", found, ids=[block.where for block in found])


PLAYED = list(dict.fromkeys(section(block) for block in BLOCKS if kind(block) == "played"))
IN_REPOSITORY = [place for place in PLAYED if place != FROM_NOTHING]


def test_every_block_is_run_or_says_why_not() -> None:
    assert [block.where for block in BLOCKS if kind(block) is None] == []
    assert {section(block) for block in BLOCKS if kind(block) == "not run"} == set(NOT_RUN)
    assert FROM_NOTHING in PLAYED


@pytest.mark.acceptance
@pytest.mark.timeout(120)
def test_the_readme_s_fifteen_lines_from_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        place.play([block for block in BLOCKS if section(block) == FROM_NOTHING])
    finally:
        place.down()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A copy of what a reader of the repository works with, `hermes-async up` in it, and a scripted model."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("agents.yaml", "celeryconfig.py"):
        shutil.copy(ROOT / name, folder)
    with ScriptedModel(script=delegating) as model:
        place = Place(folder, model.env)
        try:
            place.up()
            yield place
        finally:
            place.down()


@pytest.mark.acceptance
@pytest.mark.timeout(120)
@pytest.mark.parametrize("where", IN_REPOSITORY, ids=[f"{file}: {name}" for file, name in IN_REPOSITORY])
def test_what_is_shown_in_the_repository(repository: Place, where: tuple[str, str]) -> None:
    repository.play([block for block in BLOCKS if section(block) == where])


@of_kind("program")
def test_a_piece_of_python_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "piece.py").write_text(block.text)
    Place(tmp_path).run("python -W error piece.py")


@of_kind("bin")
def test_the_commands_of_bin_are_there(block: Block) -> None:
    for line in block.text.splitlines():
        command = line.removeprefix("$ ").split()[0]
        assert os.access(ROOT / command, os.X_OK), f"{block.where}: {command}"


@pytest.mark.acceptance
@pytest.mark.timeout(120)
@of_kind("demo")
def test_the_demo_ends_with_this_table(block: Block) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HERMES_")}
    done = subprocess.run([ROOT / "bin/demo"], env=clean, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    shown, real = block.text.splitlines(), done.stdout.rstrip().splitlines()[-5:]
    assert [re.split(r" {2,}", line)[0] for line in shown] == [re.split(r" {2,}", line)[0] for line in real]
    assert shown[-1] == real[-1]


@of_kind("yaml")
def test_yaml_is_what_agents_yaml_may_say(block: Block) -> None:
    following = next((one for one in BLOCKS if one.file == block.file and one.line > block.line), None)
    if following is None or kind(following) != "error":
        parse(block.text, "agents.yaml", {}, known_tools=ToolNames())
        return
    with pytest.raises(ConfigError) as caught:
        parse(block.text, "agents.yaml", {}, known_tools=ToolNames())
    assert str(caught.value) == following.text.strip()


@of_kind("json")
def test_json_is_what_goes_over_the_wire(block: Block) -> None:
    said = json.loads(block.text)
    if block.file == "docs/webhooks.md":
        call = make_call()
        real = json.loads(body(call, TaskResult.of(call.task)))
        assert (said.keys(), said["data"].keys()) == (real.keys(), real["data"].keys())
    elif block.file == "docs/tracing.md":
        line = logging.makeLogRecord({"attempt_ids": ids_of(make_call().task)})
        assert said.keys() == json.loads(JsonLines().format(line)).keys()
    elif "type" in said:
        assert events.parse(said).model_dump(mode="json") == said
    elif "events" in said:
        assert said.keys() == Batch.__annotations__.keys()
        assert [events.parse(event).model_dump(mode="json") for event in said["events"]] == said["events"]
    elif "ok" in said:
        assert said == commands.refusal(UnknownTask()) or said.keys() == {"ok", "session", "task", "seq"}
    elif "token" in said:
        assert jwt.encode({}, "x" * 32, algorithm="HS256").startswith(said["token"].removesuffix("..."))
    else:
        assert commands.parsed(commands.Wish, said).model_dump(exclude_unset=True) == said


def test_every_key_of_agents_yaml_is_documented() -> None:
    assert set(documented()) == {path for path, _ in leaves(SHAPE)}
    assert {path: row[2] for path, row in documented().items()} == dict(leaves(SHAPE))


def test_every_model_of_agents_yaml_is_reached() -> None:
    assert set(models(SHAPE)) == set(Spec.__subclasses__())


def documented() -> dict[str, list[str]]:
    """Every row about a key, by its path in the file."""
    found = {}
    for heading, header, rows in tables(AGENTS_YAML):
        if header[0] == "key":
            for prefix in [f"{path}." for path in re.findall(r"`(.+?)`", heading)] or [""]:
                found |= {f"{prefix}{row[0].strip('`')}": row for row in rows}
    return found


def leaves(shape: Shape, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of the models with its default as the document shows it."""
    fields = {field.alias or name: field for name, field in shape.kind.model_fields.items()}
    for key, below in shape.keys().items():
        if not below.keys():
            yield f"{prefix}{key}", default(fields[key].get_default())
            below = Shape(None) if below.item is None else below.item
            yield from leaves(below, f"{prefix}{key}.*.") if below.keys() else ()
        else:
            yield from leaves(below, f"{prefix}{key}.")


def models(shape: Shape) -> Iterator[Any]:
    if shape.keys():
        yield shape.kind
    for below in [*shape.keys().values(), *([shape.item] if shape.item else [])]:
        yield from models(below)


def default(value: Any) -> str:
    if value is PydanticUndefined or value is None or value == "":
        return "required" if value is PydanticUndefined else "unset"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def test_variables_override_what_the_document_says() -> None:
    file = next(block.text for block in BLOCKS if block.where.startswith("docs/agents-yaml.md"))
    rows = [row for _, header, rows in tables(AGENTS_YAML) if header == ["variable", "sets"] for row in rows]
    assert rows
    for variable, path in rows:
        name, value = variable.strip("`").split("=")
        found: Any = parse(file, "agents.yaml", {name: value}).model_dump(by_alias=True)
        for key in path.strip("`").split("."):
            found = found[key] if isinstance(found, dict) else next(one for one in found if one["id"] == key)
        assert str(found).removesuffix(".0") == value


def test_every_variable_of_its_own_is_documented() -> None:
    found = [rows for _, header, rows in tables(AGENTS_YAML) if header == ["variable", "default", "meaning"]]
    assert {row[0].strip("`") for row in found[0]} == VARIABLES


def column(first: str) -> dict[str, list[str]]:
    """The rows of the table of docs/wire.md whose first column has that title."""
    found = next(rows for _, header, rows in tables(WIRE) if header[0] == first)
    return {name: row for row in found for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_event_type_is_documented_with_its_data() -> None:
    rows = column("type")
    fields = {name: cls.model_fields["data"].annotation.model_fields for name, cls in events.CLASSES.items()}
    shown = {name: re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row[1])) for name, row in rows.items()}
    assert shown == {name: list(data) for name, data in fields.items()}
    assert {name for name, row in rows.items() if row[3] == "yes"} == events.INBOX_TYPES
    assert {name for name, row in rows.items() if row[4] == "now"} == written_types()
    assert set(column("field")) == set(events.Event.model_fields)


def written_types() -> set[str]:
    """The event types that some code of ours writes: those that it calls something with."""
    trees = [
        ast.parse(path.read_text())
        for part in ("adapters", "core", "domain", "worker")
        for path in (ROOT / "hermes_async" / part).rglob("*.py")
    ]
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    given = (value for call in calls for value in [*call.args, *(word.value for word in call.keywords)])
    return {value.value for value in given if isinstance(value, ast.Constant)} & set(events.CLASSES)


def test_the_schema_of_events_is_the_models_own() -> None:
    cure = "write it anew: json.dumps(ADAPTER.json_schema(), indent=2)"
    assert json.loads((ROOT / "docs/events.schema.json").read_text()) == events.ADAPTER.json_schema(), cure


def test_the_relay_s_codes_claims_and_bounds() -> None:
    assert set(column("code")) == {*(code for _, code in commands._CODES), "internal"}
    token = mint("x" * SHORTEST_SECRET, sub="tests", sessions="*", ttl=60, read_only=True)
    assert set(column("claim")) == {*jwt.decode(token, options={"verify_signature": False})}
    text, limits = WIRE.read_text(), Limits()
    for sentence in (
        AUDIENCE,
        f"at least {SHORTEST_SECRET} bytes",
        f"at most {BATCH_EVENTS} events and {BATCH_BYTES:,} bytes",
        f"not acknowledged within {limits.ack_timeout:.0f} s",
        f"has {limits.subscriptions} subscriptions",
        f"above {limits.commands:.0f} a second",
        f"more than {MESSAGE_BYTES:,} bytes is refused",
        f"more than {READ_BYTES:,} bytes closes",
        f"about {LOG_LENGTH:,} events",
        ", ".join(f"`{reason}`" for reason in Reason),
    ):
        assert sentence in text


def test_the_bounds_of_webhooks() -> None:
    text = (ROOT / "docs/webhooks.md").read_text()
    units = {"s": 1, "min": 60, "h": 3600}
    delays = re.findall(
        r"(\d+) (s|min|h)\b", text[text.index("at once, then") : text.index("after the one before")]
    )
    assert [int(number) * units[unit] for number, unit in delays] == list(DELAYS)
    for sentence in (
        f"at\nmost {LONGEST:,} bytes",
        f"none within {TIMEOUT:.0f} s",
        f"at least {SHORTEST} bytes",
        f"fails {THRESHOLD} times in a row",
    ):
        assert sentence in text
    assert PAUSE == 60  # "a minute"


def test_the_bounds_of_tools() -> None:
    text = " ".join((ROOT / "docs/tools.md").read_text().split())
    for sentence in (
        f"({TOOL_TIMEOUT:.0f} seconds, unless",
        f"({MAX_CHARS:,} characters)",
        f"When {MOST_STRAYS} have been left behind",
        f"reads {LONGEST_BODY:,} bytes at most",
        f"follows {HOPS} redirects",
        f"by {SEARCHES} searches of a process at once",
        f"after {FETCH_TIMEOUT:.0f} seconds in all",
    ):
        assert sentence in text
    *most, last = map(str, FETCH_ERRAND.ports)
    assert f"Ports are {', '.join(most)} and {last}." in text
    assert f"a worker that has left {MOST_STRAYS} behind" in (ROOT / "docs/agents-yaml.md").read_text()


def http_column(first: str) -> dict[str, list[str]]:
    """The rows of the table of docs/http.md whose first column has that title."""
    found = next(rows for _, header, rows in tables(HTTP) if header[0] == first)
    return {row[0].strip("`"): row for row in found}


def test_the_operations_and_codes_of_http() -> None:
    desk: Any = None
    described = http_app(desk, lambda app: nullcontext()).openapi()["paths"]  # type: ignore[arg-type, return-value]
    assert set(http_column("operation")) == {
        f"{method.upper()} {path}" for path, operations in described.items() for method in operations
    }
    assert {code: int(row[1]) for code, row in http_column("code").items()} == dict(STATUSES)
    for sentence in (
        f"more than {BODY_BYTES:,} bytes",
        f"within {BODY_TIME:.0f} s",
        f"for {HEARTBEAT:.0f} s",
    ):
        assert sentence in HTTP.read_text()


def test_every_metric_is_documented_with_its_type() -> None:
    shown = page(
        empty_metrics({}, open={}, oldest=None), Traffic({}, {}), Backlog(), dict.fromkeys(COUNTS, 0)
    )
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)", shown, re.M))
    rows = [row for _, header, rows in tables(METRICS) if header[0] == "metric" for row in rows]
    assert {row[0].strip("`"): row[1] for row in rows} == types


READ = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
every_document = pytest.mark.parametrize("path", READ, ids=[str(path.relative_to(ROOT)) for path in READ])


@every_document
def test_links_and_paths_lead_somewhere(path: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]*))?\)", prose(path)):
        if not target.startswith(("https://", "http://")):
            file = path.parent / target if target else path
            assert file.exists(), f"{path}: {target}"
            assert not anchor or anchor in anchors(file), f"{path}: {target}#{anchor}"
    for named in re.findall(r"`([a-z_]+/[\w./-]+)`", prose(path)):
        assert (ROOT / named).exists() or (ROOT / "hermes_async" / named).exists(), f"{path}: {named}"


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_commands_that_are_named_exist(path: Path) -> None:
    for said in re.findall(r"`hermes-async ([^`]+)`", prose(path)):
        command: click.Command = hermes_async
        words = said.split()
        for place, word in enumerate(words):
            is_value = any(before.startswith("--") for before in words[:place])
            if isinstance(command, click.Group) and not word.startswith("-") and not is_value:
                found = command.get_command(click.Context(command), word)
                assert found is not None, f"{path}: hermes-async {said}"
                command = found
            elif word.startswith("--"):
                known = {option for parameter in command.params for option in parameter.opts}
                assert word in known, f"{path}: hermes-async {said}"


def test_every_example_is_listed() -> None:
    listed = set(re.findall(r"\[(\w+\.py)\]\(\1\)", (ROOT / "examples/README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "examples").glob("*.py")} - {"__init__.py"}


def test_the_short_examples_are_short() -> None:
    short = sorted((ROOT / "examples").glob("0*.py"))
    assert [path.name for path in short if len(path.read_text().splitlines()) >= 60] == []

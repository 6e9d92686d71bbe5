"""`hermes-async agents`: what agents.yaml declares, and whether it can run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import click

from hermes_async.adapters.agents_file import json_schema
from hermes_async.adapters.guarded import Refused, target
from hermes_async.adapters.model.names import check_model
from hermes_async.adapters.model.prices import check_price
from hermes_async.adapters.plugins import load_callbacks
from hermes_async.adapters.tools import ToolNames, load_tools
from hermes_async.adapters.webhook.errand import ERRAND
from hermes_async.bootstrap import registry
from hermes_async.cli import exits
from hermes_async.cli.bridge import settings_of
from hermes_async.cli.group import Group
from hermes_async.cli.hints import FIRST_FILE
from hermes_async.cli.shell import Shell
from hermes_async.cli.tables import show_rows
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import Subagent
from hermes_async.domain.agent import AgentSpec, SubagentSpec
from hermes_async.domain.errors import ConfigError, HermesError
from hermes_async.settings import Settings


@dataclass(frozen=True)
class Entry:
    """An agent, with what is wrong with it (`problem`), if anything."""

    name: str
    type: str
    lane: str = ""
    run: str = ""
    #: What it calls each subagent, and the agent that does the work.
    subagents: dict[str, str] = field(default_factory=dict)
    #: Which functions are called with news of a subagent, by what they are called for.
    callbacks: dict[str, dict[str, str]] = field(default_factory=dict)
    description: str = ""
    problem: str = ""

    @property
    def is_idle(self) -> bool:
        """True for an agent that is declared, but has no function yet."""
        return self.type == "task" and not self.lane and not self.problem


@click.group(cls=Group)
def agents() -> None:
    """List and check what agents.yaml declares."""


@agents.command("list", example="agents list --json")
@click.pass_obj
def list_(shell: Shell) -> None:
    """List the agents with their lane and function."""
    found = entries(registry(settings_of(shell)))
    if shell.json:
        shell.answer([asdict(entry) for entry in found])
    elif found or not shell.on_terminal:
        rows = ((e.name, e.type, e.lane, e.run, e.problem or e.description or _uses(e)) for e in found)
        show_rows(shell, ("agent", "type", "lane", "run", "description"), rows)
    else:
        click.echo(f"no agents yet; begin with:\n\n{FIRST_FILE}")


@agents.command(example="agents check --config staging.yaml")
@click.pass_obj
def check(shell: Shell) -> int:
    """Import all agents and callbacks, and resolve every subagent; exit code 1 when one cannot be loaded."""
    settings = settings_of(shell)
    known = registry(settings)
    found = [
        _with_tools(entry, known, settings.tool_names, shell.trace)
        for entry in entries(known, known.prepare, shell.trace)
    ]
    idle = [
        f"agents.{entry.name} cannot run: it has neither `run` nor `model`"
        for entry in found
        if entry.is_idle
    ]
    idle += [*_mute(known), *_unposted(known, settings.webhook_allow)]
    problems = [entry.problem for entry in found if entry.problem] + list(_uncallable(known, settings))
    if shell.json:
        agents = [asdict(entry) for entry in found]
        shell.answer({"agents": agents, "notes": idle, "problems": problems, "ok": not problems})
    else:
        _tell_check(shell, found, idle, problems)
    return exits.FAILED if problems else exits.OK


@agents.command(example="agents schema > agents.schema.json")
@click.pass_obj
def schema(shell: Shell) -> None:
    """Print the JSON Schema of agents.yaml, for editors."""
    shell.answer(json_schema())


def _mute(known: Registry) -> Iterator[str]:
    """Yield a sentence for each conversation whose model cannot be asked from here; its tasks can run."""
    for name, agent in known.config.agents.items():
        if agent.type == "conversational" and agent.model is not None:
            try:
                check_model(agent.model, agent.base_url, agent.api_key)
            except ConfigError as error:
                yield f"agents.{name} cannot talk here: {error}"


def _unposted(known: Registry, allow: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each webhook that would be refused with this machine's list of the allowed."""
    for name, agent in known.config.agents.items():
        for subagent in agent.subagents:
            try:
                if subagent.webhook is not None:
                    target(subagent.webhook.url, ERRAND, allow)
            except Refused as refused:
                yield f"agents.{name}.subagents.{subagent.id}.webhook is not posted: {refused}"


def _uncallable(known: Registry, settings: Settings) -> Iterator[str]:
    """Yield why the callbacks cannot be loaded, as the worker that calls them would say."""
    try:
        load_callbacks(settings.callback_names, known.callbacks())
    except ConfigError as error:
        yield str(error)


#: Looks whether an agent has what it needs.
Look = Callable[[Subagent[..., Any]], object]
#: Is told of what is wrong with one.
Trace = Callable[[Exception], object]


def entries(
    known: Registry, look: Look = lambda agent: None, trace: Trace = lambda error: None
) -> list[Entry]:
    """Return every agent, imported and looked at; what is wrong with one is its `problem`."""
    names = dict.fromkeys((*known.config.agents, *known))
    specs = (known.config.agents.get(name, AgentSpec(name=name)) for name in names)
    return [_entry(known, name, spec, look, trace) for name, spec in zip(names, specs, strict=True)]


def _entry(known: Registry, name: str, spec: AgentSpec, look: Look, trace: Trace) -> Entry:
    uses = {subagent.id: subagent.agent for subagent in spec.subagents}
    tells = {each.id: told for each in spec.subagents if (told := _callbacks(each))}
    try:
        found = known.agent(name) if known.can_run(name) else None
        if found is not None:
            look(found)
        elif spec.model is not None:
            _priced(spec)
        return Entry(name, spec.type, subagents=uses, callbacks=tells, **_function(found, spec))
    except Exception as error:  # the module of an agent may raise anything
        trace(error)
        what = {"run": spec.run or "", "problem": _sentence(name, error)}
        return Entry(name, spec.type, subagents=uses, callbacks=tells, **what)


def _priced(spec: AgentSpec) -> None:
    """Look whether a conversation's limit on the cost can be kept."""
    try:
        check_price(spec.model or "", spec.base_url, spec.limits)
    except ConfigError as error:
        raise ConfigError(f"agent {spec.name!r}: {error}") from None


def _with_tools(entry: Entry, known: Registry, names: ToolNames, trace: Trace) -> Entry:
    """Load the tools of an agent; one that cannot be loaded says so in its `problem`."""
    spec = known.config.agents.get(entry.name)
    try:
        load_tools(names, spec.tools if spec else ())
    except ConfigError as error:
        trace(error)
        return replace(entry, problem=entry.problem or f"agent {entry.name!r}: {error}")
    return entry


def _callbacks(subagent: SubagentSpec) -> dict[str, str]:
    return {event: name for event, name in subagent.callbacks if name}


def _function(found: Subagent[..., Any] | None, spec: AgentSpec) -> dict[str, str]:
    if found is None:
        return {}
    _ = found.signature.parameters  # raises when no context is taken
    function = found.function
    place = (
        spec.run
        or _model(found, spec)
        or f"{function.__module__}:{getattr(function, '__qualname__', function)}"
    )
    return {
        "lane": found.lane.value,
        "run": place,
        "description": found.description.partition("\n")[0],
    }


def _model(found: Subagent[..., Any], spec: AgentSpec) -> str:
    return f"model {spec.model or 'as its parent says'}" if found.needs is not None else ""


def _sentence(name: str, error: Exception) -> str:
    if isinstance(error, HermesError):
        return str(error)
    return f"agent {name!r}: its module raises {type(error).__name__}: {error}"


def _uses(entry: Entry) -> str:
    return f"uses {', '.join(entry.subagents)}" if entry.subagents else ""


def _tell_check(shell: Shell, found: list[Entry], idle: list[str], problems: list[str]) -> None:
    for line in _good(found):
        click.echo(line)
    for sentence in idle:
        click.echo(f"note  {sentence}")
    for problem in problems:
        shell.tell(f"hermes-async: {problem}")
    if not found:
        shell.tell(f"no agents yet; begin with:\n\n{FIRST_FILE}")


def _good(found: list[Entry]) -> Iterator[str]:
    able = {entry.name for entry in found if not entry.problem and not entry.is_idle}
    for entry in found:
        if entry.name in able:
            yield f"ok    {entry.name}: {f'{entry.run}, {entry.lane} lane' if entry.run else entry.type}"
        for subagent, agent in entry.subagents.items():
            if agent in able:
                yield f"ok    {entry.name} -> {subagent}: {agent}{_told(entry.callbacks.get(subagent, {}))}"


def _told(callbacks: dict[str, str]) -> str:
    return "".join(f", {event} {name}" for event, name in callbacks.items())

"""agents.yaml becomes the AgentsConfig that it means, or one error: `FILE:LINE:COL: message; cure`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hermes_async.adapters.agents_file.overrides import override
from hermes_async.adapters.agents_file.references import Known, reference_faults, resolved
from hermes_async.adapters.agents_file.sentences import Fault, faults_of, unknown_key
from hermes_async.adapters.agents_file.source import (
    MAX_BYTES,
    Listing,
    Node,
    Place,
    Scalar,
    Table,
    compose,
    decode,
)
from hermes_async.adapters.agents_file.values import Values
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import ConfigError

EXAMPLE = 'agents: {research: {run: "my_agents:research"}}'
_OWN_VARIABLE = re.compile(r"\$\{(HERMES_\w+)")


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    reserved: Collection[str] = (),
    known_agents: Collection[str] = (),
    known_tools: Collection[str] | None = None,
    known_callbacks: Collection[str] | None = None,
) -> AgentsConfig:
    """Read a file (None: no file, only what the environment says); for the rest see `parse`."""
    raw, name = (b"{}", "agents.yaml") if path is None else (_read(path), str(path))
    return parse(
        raw,
        name,
        environ,
        reserved=reserved,
        known_agents=known_agents,
        known_tools=known_tools,
        known_callbacks=known_callbacks,
    )


def parse(
    text: str | bytes,
    name: str,
    environ: Mapping[str, str],
    *,
    reserved: Collection[str] = (),
    known_agents: Collection[str] = (),
    known_tools: Collection[str] | None = None,
    known_callbacks: Collection[str] | None = None,
) -> AgentsConfig:
    """Return what `text` means; `environ` fills `${VAR}` and overrides scalars (`HERMES_RELAY__PORT`).

    Args:
        text: the content of the file.
        name: how errors call the file.
        environ: the environment; empty variables override nothing.
        reserved: HERMES_ variables that override nothing, because they mean something else.
        known_agents: agents that are decorated in Python, so that the file need not declare them.
        known_tools: every tool there is; None: do not check.
        known_callbacks: every callback there is; None: do not check.
    """
    content = decode(text, name)
    root = _table(compose(content, name), name)
    _normalise(root)
    override(root, environ, frozenset(reserved) | set(_OWN_VARIABLE.findall(content)))
    config = _validated(root, environ)
    known = Known(known_agents, known_tools, known_callbacks)
    config = resolved(config, known)
    _raise_first(root, reference_faults(config, known))
    return config


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of agents.yaml, for editors."""
    schema = AgentsConfig.model_json_schema(by_alias=True)
    parts = schema["$defs"]
    del parts["AgentSpec"]["properties"]["name"]
    parts["AgentSpec"]["properties"]["session.lock"] = parts["SessionSpec"]["properties"]["lock"]
    parts["PoolSpec"]["properties"]["task_queue"] = schema["properties"]["task_queue"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "agents.yaml"}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file; create it with a line such as `{EXAMPLE}`"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None


def _table(root: Node | None, name: str) -> Table:
    if root is None or (isinstance(root, Scalar) and root.plain and not root.text):
        raise Place(name, 1, 1).fault(f"the file is empty; begin with `{EXAMPLE}`")
    if not isinstance(root, Table):
        raise root.place.fault(f"the file must be keys and values; begin with `{EXAMPLE}`")
    return root


def _normalise(root: Table) -> None:
    """Bring the two spellings that the file allows to one: `session.lock` and the place of `task_queue`."""
    pool, agents = root.items.get("async_worker_pool"), root.items.get("agents")
    if isinstance(pool, Table) and "task_queue" in pool.items:
        _move(pool, "task_queue", root, "task_queue")
    for agent in agents.items.values() if isinstance(agents, Table) else ():
        if isinstance(agent, Table) and "session.lock" in agent.items:
            _nest_lock(agent)


def _nest_lock(agent: Table) -> None:
    place = agent.places["session.lock"]
    session = agent.items.setdefault("session", Table(place))
    agent.places.setdefault("session", place)
    if not isinstance(session, Table):
        raise place.fault("`session` and `session.lock` are both given; keep one of the two")
    _move(agent, "session.lock", session, "lock")


def _move(source: Table, key: str, target: Table, new: str) -> None:
    if new in target.items:
        first, second = sorted((source.places[key], target.places[new]))
        raise second.fault(f"{key} is already given on line {first.line}; keep one of the two")
    target.items[new], target.places[new] = source.items.pop(key), source.places.pop(key)


def _validated(root: Table, environ: Mapping[str, str]) -> AgentsConfig:
    """Return the configuration without its references, or raise the first fault in the file."""
    values = Values(environ)
    text = json.dumps(values.of(root))
    try:
        config = AgentsConfig.model_validate_json(text, by_alias=True, by_name=False)
    except ValidationError as error:
        _raise_first(root, chain(values.faults, _named(root), faults_of(error)))
        raise
    _raise_first(root, chain(values.faults, _named(root)))
    return config


def _named(root: Table) -> Iterator[Fault]:
    """Refuse `name:` in an agent: it is the key, and the model has it for readers only."""
    agents = root.items.get("agents")
    for name, agent in agents.items.items() if isinstance(agents, Table) else ():
        if isinstance(agent, Table) and "name" in agent.items:
            loc = ("agents", name, "name")
            yield Fault(loc, unknown_key(loc), at_key=True)


def _raise_first(root: Node, faults: Iterable[Fault]) -> None:
    """Raise the fault that stands first in the file."""
    placed = ((_place(root, fault), fault) for fault in faults)
    first = min(placed, key=_position, default=None)
    if first is not None:
        raise first[0].fault(first[1].told())


def _position(placed: tuple[Place, Fault]) -> tuple[int, int]:
    return placed[0].line, placed[0].column


def _place(root: Node, fault: Fault) -> Place:
    """Return the place of the node, or of the nearest one above it."""
    node, place = root, root.place
    for key in fault.loc:
        found = _step(node, key)
        if found is None:
            return node.place
        node, place = found
    return place if fault.at_key else node.place


def _step(node: Node, key: str | int) -> tuple[Node, Place] | None:
    if isinstance(node, Table) and str(key) in node.items:
        return node.items[str(key)], node.places[str(key)]
    if isinstance(node, Listing) and isinstance(key, int):
        return node.items[key], node.items[key].place
    return None

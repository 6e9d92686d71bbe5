"""Environment variables that stand in for scalars of agents.yaml: `HERMES_RELAY__PORT` is `relay.port`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from hermes_async.adapters.agents_file.shape import ROOT, Shape
from hermes_async.adapters.agents_file.source import Listing, Node, Place, Scalar, Table
from hermes_async.domain.errors import did_you_mean

PREFIX = "HERMES_"


def override(root: Table, environ: Mapping[str, str], reserved: frozenset[str]) -> None:
    """Write the variables of `environ` into the nodes, except those whose names are `reserved`."""
    known = reserved | {PREFIX + name for name in _leaves(ROOT)}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in reserved and environ[name] and _is_meant(name, known):
            _Override(name, environ[name], known).write(root)


def _is_meant(name: str, known: frozenset[str]) -> bool:
    """Tell whether a variable is an override or a slip of one; others may begin with HERMES_ too."""
    first, nested, _ = name.removeprefix(PREFIX).lower().partition("__")
    parts = ROOT.keys()
    if first in parts or (nested and get_close_matches(first, parts)):
        return True
    return bool(
        get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], cutoff=0.8)
    )


def _leaves(shape: Shape) -> Iterator[str]:
    """Yield the names of all variables that need no name from the file."""
    for key, below in shape.keys().items():
        if below.is_scalar:
            yield key.upper()
        yield from (f"{key.upper()}__{rest}" for rest in _leaves(below))


class _Override:
    """One variable on its way down to the scalar that it replaces."""

    def __init__(self, name: str, text: str, known: frozenset[str]) -> None:
        self._place = Place(name)
        self._text = text
        self._known = known

    def write(self, root: Table) -> None:
        """Replace the scalar, unless the file is so wrong on the way that its own error must be told."""
        *parents, last = self._place.source.removeprefix(PREFIX).split("__")
        node: Node = root
        shape = ROOT
        for segment in parents:
            if not _fits(node, shape):
                return
            node, shape = self._step(node, shape, segment)
        if _fits(node, shape):
            self._replace(node, shape, self._key(node, shape, last))

    def _replace(self, node: Node, shape: Shape, key: str) -> None:
        below = shape.below(key)
        if not isinstance(node, Table) or not below.is_scalar:
            raise self._place.fault("this is not a single value; change it in agents.yaml")
        node.items[key] = Scalar(self._place, self._text, plain=not below.is_text)
        node.places[key] = self._place

    def _step(self, node: Node, shape: Shape, segment: str) -> tuple[Node, Shape]:
        key = self._key(node, shape, segment)
        below = shape.below(key)
        if isinstance(node, Listing):
            return next(item for item in node.items if _id(item) == key), below
        assert isinstance(node, Table)
        empty = Listing(self._place) if below.kind is tuple else Table(self._place)
        node.places.setdefault(key, self._place)
        return node.items.setdefault(key, empty), below

    def _key(self, node: Node, shape: Shape, segment: str) -> str:
        """Return the key, the name of an agent or the id of a subagent that a segment means."""
        names = list(shape.keys()) or _names(node)
        for name in names:
            if re.sub(r"\W", "_", name).upper() == segment.upper():
                return name
        raise self._place.fault(f"no setting has this name{self._nearest(segment, names)}")

    def _nearest(self, segment: str, names: list[str]) -> str:
        whole = self._place.source
        if "__" in whole:
            return did_you_mean(segment, [name.upper() for name in names]) or "; delete the variable"
        return did_you_mean(whole, self._known) or "; delete the variable"


def _fits(node: Node, shape: Shape) -> bool:
    """Tell whether the node is of the kind that the models want here."""
    return isinstance(node, Listing if shape.kind is tuple else Table)


def _names(node: Node) -> list[str]:
    """Return the names of the agents or the ids of the subagents in a node."""
    if isinstance(node, Listing):
        return [name for item in node.items if (name := _id(item))]
    return list(node.items) if isinstance(node, Table) else []


def _id(node: Node) -> str:
    identity = node.items.get("id") if isinstance(node, Table) else None
    return identity.text if isinstance(identity, Scalar) else ""

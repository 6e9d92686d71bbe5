"""A small and strict YAML: text becomes nodes that know their line and column, within fixed bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import yaml

from hermes_async.adapters.agents_file.faults import explain
from hermes_async.domain.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 50_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})?(\.[0-9]{0,30})?([eE][-+]?[0-9]{1,3})?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Place(NamedTuple):
    """Where something was said: file, line and column from 1; or, with line 0, an environment variable."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def fault(self, sentence: str) -> ConfigError:
        """Return the error that `sentence` is wrong here."""
        return ConfigError(f"{self}: {sentence}")


@dataclass(slots=True)
class Scalar:
    """A single value as it was written; `plain` when without quotes."""

    place: Place
    text: str
    plain: bool = False


@dataclass(slots=True)
class Listing:
    """A list of nodes."""

    place: Place
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """Keys and values, in order; `places` has the places of the keys."""

    place: Place
    items: dict[str, Node] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)


Node = Scalar | Listing | Table
Value = None | bool | int | float | str


def resolve(text: str) -> Value:
    """Return what a plain scalar means: YAML 1.2, so `yes`, `010` and `1:30` are text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and any(character.isdigit() for character in text):
        number = _float(text)
        return number if math.isfinite(number) else text
    return text


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def decode(raw: bytes | str, name: str) -> str:
    """Return the text of a file: UTF-8, not too large, and without control characters."""
    if len(raw) > MAX_BYTES:
        raise Place(name, 1, 1).fault(f"the file is larger than {MAX_BYTES:,} bytes; split or shorten it")
    text = _utf8(raw, name) if isinstance(raw, bytes) else raw
    text = text.removeprefix("\ufeff")
    if found := _UNPRINTABLE.search(text):
        place = _place(name, text[: found.start()])
        raise place.fault(f"the character U+{ord(found[0]):04X} is not allowed; delete it")
    return text


def _utf8(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place = _place(name, raw[: error.start].decode(errors="replace"))
        raise place.fault("this is not UTF-8; save the file with the encoding UTF-8") from None


def _place(name: str, before: str) -> Place:
    return Place(name, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def compose(text: str, name: str) -> Node | None:
    """Return the one document of `text`, or None when there is nothing in it."""
    try:
        return _Composer(text, name).document()
    except yaml.MarkedYAMLError as error:
        mark, sentence = explain(error, text)
        raise Place(name, mark.line + 1, mark.column + 1).fault(sentence) from None
    except yaml.YAMLError:
        raise Place(name, 1, 1).fault("this is not YAML; begin with a line such as `agents:`") from None


class _Composer:
    """Builds nodes from the parser's events one by one, so that no input can make it build too much."""

    def __init__(self, text: str, name: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._name = name
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self) -> Node | None:
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        root = self._node(next(self._events), 1)
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._fail(after, "a second document begins here; a file holds one, so delete the `---`")
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._count(event, depth)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        self._refuse_tag(event)
        node = self._content(event, depth)
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = node
        return node

    def _content(self, event: yaml.Event, depth: int) -> Node:
        if isinstance(event, yaml.MappingStartEvent):
            return self._table(event, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._listing(event, depth)
        assert isinstance(event, yaml.ScalarEvent)
        return Scalar(self._place(event), event.value, plain=event.implicit[0])

    def _listing(self, event: yaml.Event, depth: int) -> Listing:
        listing = Listing(self._place(event))
        while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
            listing.items.append(self._node(following, depth + 1))
        return listing

    def _table(self, event: yaml.Event, depth: int) -> Table:
        table = Table(self._place(event))
        while not isinstance(following := next(self._events), yaml.MappingEndEvent):
            key = self._key(following, table, depth + 1)
            table.places[key] = self._place(following)
            table.items[key] = self._node(next(self._events), depth + 1)
        return table

    def _key(self, event: yaml.Event, table: Table, depth: int) -> str:
        self._count(event, depth)
        if not isinstance(event, yaml.ScalarEvent):
            self._fail(event, "a key must be text, not a list, a mapping or an alias")
        self._refuse_tag(event)
        key: str = event.value
        if key == "<<" and event.implicit[0]:
            self._fail(event, "merge keys (`<<`) are not allowed; write the keys out")
        if key in table.items:
            first = table.places[key].line
            self._fail(
                event, f"the key {shorten(key)!r} is already given on line {first}; keep one of the two"
            )
        return key

    def _refuse_tag(self, event: yaml.Event) -> None:
        if getattr(event, "tag", None) is not None:
            self._fail(event, "tags such as `!!str` are not allowed; delete the tag")

    def _alias(self, event: yaml.AliasEvent, depth: int) -> Node:
        anchor = event.anchor or ""
        if anchor not in self._anchors:
            self._fail(event, f"there is no anchor &{shorten(anchor)} before this; write the value out")
        return self._copied(self._anchors[anchor], event, depth)

    def _copied(self, node: Node, event: yaml.Event, depth: int) -> Node:
        """Write out what an alias stands for, counting every value of it."""
        if isinstance(node, Scalar):
            return node
        if isinstance(node, Listing):
            return Listing(node.place, [self._counted(item, event, depth + 1) for item in node.items])
        items = {key: self._counted(item, event, depth + 1) for key, item in node.items.items()}
        return Table(node.place, items, dict(node.places))

    def _counted(self, node: Node, event: yaml.Event, depth: int) -> Node:
        self._count(event, depth)
        return self._copied(node, event, depth)

    def _count(self, event: yaml.Event, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._fail(
                event, f"the file has more than {MAX_NODES:,} values, aliases counted in full; shorten it"
            )
        if depth > MAX_DEPTH:
            self._fail(event, f"this is nested more than {MAX_DEPTH} levels deep; make it flatter")

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        assert mark is not None
        return Place(self._name, mark.line + 1, mark.column + 1)

    def _fail(self, event: yaml.Event, sentence: str) -> NoReturn:
        raise self._place(event).fault(sentence)


def shorten(text: str, limit: int = 60) -> str:
    """Return text that fits into a sentence."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"

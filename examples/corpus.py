"""The passages that `research` searches: docstrings, doc comments and READMEs of installed packages."""

from __future__ import annotations

import ast
import inspect
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, distribution
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from examples.ranking import Index
from examples.sourcetree import SourceFile, distributions_of, parse, source_files
from examples.text import terms

FILES_PER_STEP = 8
PASSAGE_WORDS = 120

_DOC_COMMENT = re.compile(r"^\s*#: ?(.*)$")
_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Passage(NamedTuple):
    """A piece of documentation, short enough to be about one thing."""

    package: str
    module: str
    object: str
    path: str
    line: int
    text: str

    @property
    def location(self) -> str:
        """Where to read it, as editors understand it."""
        return f"{self.path}:{self.line}"


class _Text(NamedTuple):
    object: str
    line: int
    text: str


@dataclass(slots=True)
class Shelf:
    """The passages of one package, read a few files at a time so that nobody waits long."""

    package: str
    unread: deque[SourceFile | Distribution]
    index: Index[Passage] = field(default_factory=Index)
    complete: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read_some(self) -> None:
        """Read the next few files; whoever comes next goes on where this left off."""
        with self._lock:
            for _ in range(min(FILES_PER_STEP, len(self.unread))):
                for passage in _passages(self.unread.popleft(), self.package):
                    self._put(passage)
            self.complete = not self.unread

    def _put(self, passage: Passage) -> None:
        title = [*terms(passage.object), *set(terms(passage.module))]
        self.index.add(passage, title, terms(passage.text))


@cache
def open_shelf(package: str) -> Shelf:
    """Return the shelf of a package: one per process, so that hundreds of tasks read each file once."""
    readmes = [distribution(name) for name in distributions_of(package)]
    return Shelf(package, deque([*readmes, *source_files(package)]))


def _passages(source: SourceFile | Distribution, package: str) -> Iterator[Passage]:
    if isinstance(source, SourceFile):
        texts, module, path = _documentation(source.path), source.module, source.label
    else:
        name = source.metadata["Name"]
        texts, module, path = _description(source), package, f"{name}-{source.version}.dist-info/METADATA"
    for text in texts:
        for line, part in _split(text.text):
            yield Passage(package, module, text.object, path, text.line + line, part)


def _description(source: Distribution) -> Iterator[_Text]:
    """Yield the README that a distribution carries in its metadata."""
    head, _, body = (source.read_text("METADATA") or "").partition("\n\n")
    yield _Text("README", head.count("\n") + 3, body)


def _documentation(path: Path) -> Iterator[_Text]:
    source = path.read_bytes()
    tree = parse(source)
    if tree is None:
        return
    lines = source.decode(errors="replace").split("\n")
    stack: list[tuple[ast.Module | _Documented, str]] = [(tree, "")]
    while stack:
        node, name = stack.pop()
        yield from _docstring(node, name)
        yield from _attributes(node, name, lines)
        stack += [(child, f"{name}.{child.name}".lstrip(".")) for child in _definitions(node)]


def _definitions(node: ast.Module | _Documented) -> Iterator[_Documented]:
    return (child for child in node.body if isinstance(child, _Documented))


def _docstring(node: ast.Module | _Documented, name: str) -> Iterator[_Text]:
    if node.body and (text := _string(node.body[0])):
        yield _text(name, node.body[0].lineno, text)


def _attributes(node: ast.Module | _Documented, name: str, lines: list[str]) -> Iterator[_Text]:
    """Yield what is said of attributes: `#:` comments above them, or a string below."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for statement, below in zip_longest(node.body, node.body[1:]):
        if target := _target(statement):
            attribute = f"{name}.{target}".lstrip(".")
            comment = _comment_above(lines, statement.lineno)
            if comment:
                yield _Text(attribute, statement.lineno - len(comment), "\n".join(comment))
            if below is not None and (text := _string(below)):
                yield _text(attribute, below.lineno, text)


def _comment_above(lines: list[str], line: int) -> list[str]:
    comment: list[str] = []
    while line >= 2 and (match := _DOC_COMMENT.match(lines[line - 2])):
        comment.insert(0, match[1])
        line -= 1
    return comment


def _target(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    return ""


def _string(statement: ast.stmt) -> str:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _text(name: str, line: int, text: str) -> _Text:
    # cleandoc drops empty lines at the top: the line number has to follow.
    above = text[: len(text) - len(text.lstrip())].count("\n")
    return _Text(name, line + above, inspect.cleandoc(text))


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Yield passages of whole paragraphs and the line at which each begins."""
    start, count, lines = 0, 0, text.split("\n")
    for number, line in enumerate(lines):
        count += len(line.split())
        if count >= PASSAGE_WORDS and not line.strip():
            yield start, "\n".join(lines[start:number])
            start, count = number + 1, 0
    if count:
        yield start, "\n".join(lines[start:])

"""The folder `hermes_callbacks/`: which functions its files define, and how they are loaded safely.

The names are read without running anything. Loading happens only in the process that makes the calls and in
`agents check`, and refuses files that somebody else could have written.
"""

from __future__ import annotations

import ast
import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from hermes_async.core.importing import guarded, told
from hermes_async.domain.errors import ConfigError

#: Its name, beside agents.yaml.
FOLDER: Final = "hermes_callbacks"
#: Under which its files are modules; nobody can import them by it.
_MODULES: Final = "hermes_async._callbacks"


@dataclass(frozen=True)
class _File:
    path: Path
    source: bytes


@dataclass(frozen=True)
class _Definition:
    file: _File
    line: int

    def __str__(self) -> str:
        return f"{self.file.path}:{self.line}"


def defined(folder: Path) -> frozenset[str]:
    """Return the names of the public functions in the folder's files; nothing is run.

    Raises:
        ConfigError: a file cannot be read or parsed, or two define the same name.
    """
    return frozenset(_definitions(_files(folder, owners=None)))


def load(folder: Path) -> dict[str, Callable[..., Any]]:
    """Run the folder's files and return their public functions by name.

    Raises:
        ConfigError: somebody else could have written a file, or it fails: nothing of the folder is used.
    """
    found = _definitions(_files(folder, owners=frozenset({0, os.geteuid()})))
    modules = {path: _module(path, source) for path, source in _sources(found).items()}
    return {name: getattr(modules[place.file.path], name) for name, place in found.items()}


def _sources(found: Mapping[str, _Definition]) -> dict[Path, bytes]:
    return {place.file.path: place.file.source for place in found.values()}


def _files(folder: Path, owners: frozenset[int] | None) -> Iterator[_File]:
    """Yield the folder's Python files, each as it was read; only `owners` may have written them."""
    if not folder.is_dir():
        return
    root = folder.resolve()
    if not root.is_relative_to(folder.parent.resolve()):
        raise ConfigError(f"{folder}: is a link that leaves {folder.parent}; put the folder itself there")
    _check(folder, root.stat(), owners)
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith(("_", ".")):
            yield _File(path, _read(path, root, owners))


def _read(path: Path, root: Path, owners: frozenset[int] | None) -> bytes:
    """Return what is in a file; what is checked is the open file itself, so that it cannot be exchanged."""
    real = path.resolve()
    if not real.is_relative_to(root):
        raise ConfigError(f"{path}: is a link that leaves {root}; put the file itself there")
    try:
        for parent in real.parents[: len(real.relative_to(root).parts) - 1]:
            _check(parent, parent.stat(), owners)
        with open(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            _check(path, os.fstat(file.fileno()), owners)
            return file.read()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None


def _check(path: Path, found: os.stat_result, owners: frozenset[int] | None) -> None:
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ConfigError(f"{path}: is not a file; take it out of {FOLDER}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(f"{path}: others may write it (mode {mode:o}); run `chmod go-w {path}`")
    if owners is not None and found.st_uid not in owners:
        raise ConfigError(
            f"{path}: belongs to user {found.st_uid}, not to root or to user {os.geteuid()}, who runs this "
            "worker; change its owner"
        )


def _definitions(files: Iterator[_File]) -> dict[str, _Definition]:
    found: dict[str, _Definition] = {}
    for file in files:
        for node in _parsed(file).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            here, before = _Definition(file, node.lineno), found.get(node.name)
            if before is not None and before.file is not file:
                raise ConfigError(
                    f"{here}: a callback {node.name!r} is already defined in {before}; rename one of the two"
                )
            found[node.name] = here
    return found


def _parsed(file: _File) -> ast.Module:
    try:
        return ast.parse(file.source, file.path)
    except SyntaxError as error:
        place = f"{file.path}:{error.lineno or 1}:{error.offset or 1}"
        raise ConfigError(f"{place}: {error.msg}; this is not valid Python") from None
    except ValueError as error:  # a NUL byte
        raise ConfigError(f"{file.path}:1:1: {error}; this is not valid Python") from None


class _Loader(SourceFileLoader):
    """Runs the source that was checked: no second look at the file, and no bytecode from beside it."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source."""
        code: CodeType = self.source_to_code(self._source, self.path)
        return code


def _module(path: Path, source: bytes) -> ModuleType:
    name = f"{_MODULES}.{path.stem}"
    spec = spec_from_file_location(name, path, loader=_Loader(name, str(path), source))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        with guarded(str(path)):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file does when it is loaded
        del sys.modules[name]
        raise ConfigError(f"{_place(path, error)}: cannot be loaded: {told(error)}") from error
    return module


def _place(path: Path, error: BaseException) -> str:
    """Return the line of the file in which the error came up."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f"{path}:{lines[-1] if lines else 1}"

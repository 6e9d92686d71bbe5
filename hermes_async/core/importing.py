"""Modules of users, imported: whatever they do then is one sentence that names the line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from hermes_async.domain.errors import ConfigError, HermesError

#: What is held around the import of a module, which may print, hang or end: nothing, unless a program has to
#: keep its output clean.
Guard = Callable[[str], AbstractContextManager[object]]
GUARD: ContextVar[Guard] = ContextVar("GUARD", default=nullcontext)
#: Where code is that no user has written: what has no file, ours, and Python's own.
_OURS: Final = ("<", f"{Path(__file__).parents[1]}{os.sep}")
_PYTHON: Final = f"{Path(os.__file__).parent}{os.sep}"


@contextmanager
def importing(module: str, fault: str) -> Iterator[None]:
    """Import a module within this; `fault` begins the sentence about whatever comes of it.

    Raises:
        ConfigError: it cannot be imported; the message says why, and at which line.
    """
    try:
        with guarded(module):
            yield
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise ConfigError(f"{fault}: {_place(error)}{told(error)}") from error


def guarded(module: str) -> AbstractContextManager[object]:
    """Return what is to be held while a module is imported."""
    return nullcontext() if module in sys.modules else GUARD.get()(module)


def told(error: BaseException) -> str:
    """Return an error in one line."""
    if isinstance(error, ImportError | HermesError):
        return str(error)
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _place(error: BaseException) -> str:
    """Return `file:line: ` of the user's code, rather than of a package that it uses; or nothing."""
    frames = traceback.walk_tb(error.__traceback__)
    places = [(frame.f_code.co_filename, line) for frame, line in frames]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno or 1))
    yours = [place for place in places if not _is_foreign(place[0])]
    own = [place for place in yours if is_own(place[0])]
    return next((f"{_shown(file)}:{line}: " for file, line in reversed(own or yours)), "")


def is_own(file: str) -> bool:
    """Tell whether code is of the project itself: not ours, not Python's, and not of a package."""
    return not _is_foreign(file) and not _is_installed(file)


def _is_foreign(file: str) -> bool:
    return file.startswith(_OURS) or (file.startswith(_PYTHON) and not _is_installed(file))


def _is_installed(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file


def _shown(file: str) -> str:
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file

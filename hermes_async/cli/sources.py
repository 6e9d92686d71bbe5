"""The files that a project runs from: what has read them does not see that they change."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from hermes_async.adapters.plugins import FOLDER
from hermes_async.settings import DEFAULT_FILE, Settings

#: Seconds between two looks at them.
LOOK_EVERY: Final = 1.0


def sources(settings: Settings) -> frozenset[Path]:
    """Return agents.yaml, the callbacks, the modules of the agents, and others of the project's folder.

    Of modules only those that this process has imported are known: load the agents before.
    """
    named = {agent.run.partition(":")[0] for agent in settings.agents.agents.values() if agent.run}
    named.update(settings.modules)
    folder = settings.project_dir
    files = {settings.config or folder / DEFAULT_FILE, *(folder / FOLDER).glob("*.py")}
    for name, module in list(sys.modules.items()):
        if place := getattr(module, "__file__", None):
            file = Path(place)
            if name in named or (file.is_relative_to(folder) and "site-packages" not in file.parts):
                files.add(file)
    return frozenset(files)


class Changes:
    """What has changed of some files since the last look, or since this was made."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._seen = {file: _changed_at(file) for file in files}

    def look(self) -> list[Path]:
        """Return each file that has changed; one that is away, perhaps to be replaced, is waited for."""
        now = {file: _changed_at(file) for file in self._seen}
        found = [file for file, at in now.items() if at and at != self._seen[file]]
        self._seen.update({file: now[file] for file in found})
        return found


async def tell_changes(changes: Changes, say: Callable[[str], None]) -> None:
    """Say once of each change that it has no effect yet."""
    while True:
        await anyio.sleep(LOOK_EVERY)
        if found := await anyio.to_thread.run_sync(changes.look):
            say(f"{changed(found)} since this began; stop it and start it again")


def changed_since(files: Iterable[Path], moment: float) -> list[Path]:
    """Return those that have changed after a moment, in seconds of the clock."""
    return [file for file in files if _changed_at(file) > moment * 1e9]


def changed(files: Iterable[Path]) -> str:
    """Return `this, that have changed`."""
    here = Path.cwd()
    names = sorted(str(file.relative_to(here) if file.is_relative_to(here) else file) for file in files)
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} changed"


def _changed_at(file: Path) -> int:
    """Return when a file has changed, in nanoseconds; 0: it is away."""
    with suppress(OSError):
        return file.stat().st_mtime_ns
    return 0

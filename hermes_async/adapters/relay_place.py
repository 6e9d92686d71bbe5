"""Where the project's own relay listens: told in the state folder for as long as it runs.

Whoever told it holds the file's lock, so a relay that was killed leaves nothing that anybody believes.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hermes_async.adapters.file_lock import FileLock
from hermes_async.adapters.state_folder import prepare

FILE: Final = "relay.url"

logger = logging.getLogger("hermes.relay")


def running_relay(state_dir: Path) -> str | None:
    """Return the URL of the relay that runs here; of several, the latest."""
    path = state_dir / FILE
    try:
        lock = FileLock.attempt(path, fcntl.LOCK_SH, create=False)
        if lock is None:
            return path.read_text()
    except OSError:
        return None
    lock.release()
    return None


@contextmanager
def tell_relay(state_dir: Path, url: str) -> Iterator[None]:
    """Let the project's clients find a relay until the context ends, if something can be written here."""
    path = state_dir / FILE
    draft = path.with_name(f"{FILE}.{os.getpid()}")
    try:
        prepare(state_dir)
        with FileLock(draft).until_failure() as lock:
            lock.take(fcntl.LOCK_EX)
            draft.write_text(url)
            draft.replace(path)
    except OSError as error:
        logger.info("clients here must be told where the relay is: %s cannot be written (%s)", path, error)
        yield
        return
    try:
        yield
    finally:
        if running_relay(state_dir) == url:  # else a later one has told its own
            path.unlink(missing_ok=True)
        lock.release()

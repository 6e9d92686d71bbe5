"""Where conversations are kept, and that one chat at a time has a session."""

from __future__ import annotations

import fcntl
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hermes_async.adapters.file_lock import FileLock
from hermes_async.domain.errors import ConfigError, InvalidInput

#: Bytes of a file's name that file systems take, and we use for the session's.
_LONGEST: Final = 120


def file_of(folder: str | os.PathLike[str], session_id: str) -> Path:
    """Return where the conversation of a session is kept; two sessions never share a file."""
    name = quote(session_id, safe=" ")
    if name.startswith(".") or len(name) > _LONGEST or session_id != session_id.lower():
        digest = blake2b(session_id.encode(), digest_size=8).hexdigest()
        name = f"{name[:_LONGEST].lstrip('.')}-{digest}"
    return Path(folder) / f"{name}.json"


def hold(file: Path, session_id: str) -> FileLock:
    """Let no other chat have a session, with a model or without: they share its inbox.

    Args:
        file: that of its conversation, which need not be there.
        session_id: how it is called.

    Raises:
        InvalidInput: another chat has it.
        ConfigError: nothing can be written there.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock.attempt(_lock_of(file), fcntl.LOCK_EX)
    except OSError as error:
        why = f"cannot be written ({error.strerror}); check its permissions, or set HERMES_STATE_DIR"
        raise ConfigError(f"{file.parent}: {why}") from None
    if lock is None:
        raise InvalidInput(f"session {session_id} is open in another chat: leave that, or begin another")
    if lock.astray:  # who had it has just removed the file
        lock.release()
        return hold(file, session_id)
    return lock


def let_go(file: Path, lock: FileLock) -> None:
    """Let others have it again."""
    _lock_of(file).unlink(missing_ok=True)
    lock.release()


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".lock")

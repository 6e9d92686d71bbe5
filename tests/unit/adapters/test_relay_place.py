"""Where the project's own relay listens, as long as it does."""

from __future__ import annotations

import logging
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_async.adapters.relay_place import FILE, running_relay, tell_relay
from tests.support.servers import Process

URL = "http://127.0.0.1:4711"


def test_it_is_known_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / ".hermes"
    assert running_relay(folder) is None
    with tell_relay(folder, URL):
        assert running_relay(folder) == URL
        assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
        assert {path.name for path in folder.iterdir()} == {".gitignore", FILE}
    assert running_relay(folder) is None
    assert {path.name for path in folder.iterdir()} == {".gitignore"}


def test_of_two_the_later_is_known_and_the_first_does_not_take_its_word_away(tmp_path: Path) -> None:
    first, second = tell_relay(tmp_path, URL), tell_relay(tmp_path, "http://[::1]:4712")
    first.__enter__()
    second.__enter__()
    assert running_relay(tmp_path) == "http://[::1]:4712"
    first.__exit__(None, None, None)
    assert running_relay(tmp_path) == "http://[::1]:4712"
    second.__exit__(None, None, None)
    assert not (tmp_path / FILE).exists()


def test_what_a_killed_relay_has_left_is_not_believed(tmp_path: Path, spawn: Callable[..., Process]) -> None:
    told = f"tell_relay(Path({str(tmp_path)!r}), {URL!r})"
    code = (
        "import time\nfrom pathlib import Path\nfrom hermes_async.adapters.relay_place import tell_relay\n"
        f"with {told}:\n    print('told', flush=True)\n    time.sleep(60)"
    )
    relay = spawn([sys.executable, "-c", code])
    relay.wait_for_log("told")
    assert running_relay(tmp_path) == URL
    relay.signal(signal.SIGKILL)
    relay.wait()
    assert (tmp_path / FILE).read_text() == URL
    assert running_relay(tmp_path) is None
    with tell_relay(tmp_path, URL):
        assert running_relay(tmp_path) == URL


def test_a_folder_that_cannot_be_written_stops_no_relay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in the way"
    folder.write_text("")
    with caplog.at_level(logging.INFO, "hermes.relay"), tell_relay(folder, URL):
        assert running_relay(folder) is None
    assert "relay.url cannot be written" in caplog.text

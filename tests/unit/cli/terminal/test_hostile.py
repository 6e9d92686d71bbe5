"""What models, tasks and pipes may bring along, and what reaches a terminal of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from hermes_async.chat.pieces import Text, TurnBegan
from hermes_async.cli.shell import Shell
from hermes_async.cli.terminal.screen import Screen
from hermes_async.cli.terminal.voice import JsonLines, Plain
from hermes_async.cli.words import as_json, harmless
from hermes_async.domain.errors import InvalidInput

#: An escape, one of eight bits, what turns the order of letters, a line that is none, half a character.
HOSTILE = "a\x1b[2J\x9b2J\x7f\u202eb\u2066\u2069\u2028c\ud83d"


def test_nothing_is_obeyed() -> None:
    assert harmless(HOSTILE) == "a�[2J�2J��b���c�"
    assert harmless("two\r\nlines\tof 漢字 👩\u200d🚀") == "two\nlines\tof 漢字 👩\u200d🚀"


def test_json_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    written = as_json({"said": HOSTILE})
    assert json.loads(written) == {"said": HOSTILE}
    assert written.isprintable()
    Shell(json=True).answer(HOSTILE)
    JsonLines().note(HOSTILE)
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_what_was_said_before_is_noted_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    Plain(lambda event: "").note(HOSTILE)
    assert capsys.readouterr().err == f"{harmless(HOSTILE)}\n"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Screen, list[str]]]:
    """A screen without a terminal, and the lines that it prints."""
    nothing = cast("Any", None)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        screen, printed = Screen(nothing, nothing, None, lambda: False), list[str]()
        monkeypatch.setattr(screen, "_print", printed.append)
        yield screen, printed


def test_a_line_without_an_end_takes_no_time(screen: tuple[Screen, list[str]]) -> None:
    it, printed = screen
    began = time.process_time()
    it.piece(Text(1, "word " * 40_000))
    assert time.process_time() - began < 2
    assert len(printed) == 40_000 * 5 // 80
    assert not any(len(line) > 80 for line in printed)


def test_letters_without_width_are_no_line_without_an_end(screen: tuple[Screen, list[str]]) -> None:
    it, printed = screen
    it.piece(Text(1, "\u0301" * 100_000))
    assert len(printed) == 50


def test_a_command_that_fails_is_no_turn_of_what_waits(screen: tuple[Screen, list[str]]) -> None:
    it, printed = screen
    it._waiting.append("hello")
    it.fault(InvalidInput("there is no /bogus"))
    it.piece(TurnBegan(2, "hello"))
    assert sum("hello" in line for line in printed) == 1


def test_what_is_typed_in_another_encoding_has_its_turn(screen: tuple[Screen, list[str]]) -> None:
    it, _ = screen
    it._accept(Buffer(document=Document("caf\udce9")))
    assert it._typed.get_nowait() == "caf�"
    it.piece(TurnBegan(1, "caf�"))
    assert not it._waiting

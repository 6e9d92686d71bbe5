"""docs/chat.md names every command, every piece of a turn and every exit code."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import get_args

from hermes_async.chat.pieces import Piece
from hermes_async.cli import exits
from hermes_async.cli.terminal.slash import COMMANDS
from tests.support.documents import tables
from tests.support.servers import ROOT

TABLES = {header[0]: rows for _, header, rows in tables(ROOT / "docs/chat.md") if header[0]}


def test_commands() -> None:
    shown = [row[0].strip("`") for row in TABLES["command"]]
    assert shown[0] == "/SUBAGENT TEXT"
    assert set(shown[1:]) == {f"/{name} {each.takes}".strip() for name, each in COMMANDS.items()}


def test_pieces() -> None:
    shown = {
        row[0].strip("`"): re.findall(r"`(\w+)`", re.sub(r"\(.*\)", "", row[1])) for row in TABLES["piece"]
    }
    assert shown == {
        kind.__name__: [field.name for field in fields(kind) if field.name != "turn"]
        for kind in get_args(Piece)
    }


def test_exit_codes() -> None:
    shown = {int(code) for row in TABLES["exit code"] for code in row[0].split(", ")}
    assert shown == {
        exits.OK, exits.FAILED, exits.UNFINISHED, exits.USAGE, exits.UNAVAILABLE, exits.INTERRUPTED
    }  # fmt: skip

"""What documents show: their fenced blocks, tables and links, and a folder in which the blocks are played."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.support.servers import ROOT, Process, free_port

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples/README.md"]
#: Seconds for `up` to be ready, and for any other command.
PATIENCE = 45
NOTHING: Mapping[str, str] = MappingProxyType({})

_TASK_ID = re.compile(r"\bt\d\d-[0-9a-z]{20,}\b")
#: What differs between two runs of the same command, and what stands for it.
_VARIES = (
    (re.compile(r"\bt\d\d-[0-9a-z]{5}\b"), "<task>"),
    (re.compile(r"\bs-[0-9a-z]{26}\b"), "<session>"),
    (re.compile(r"\b(redis|valkey)-server\b"), "<server>"),
    (re.compile(r"(?<=://127\.0\.0\.1):\d+"), ":<port>"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s)\b"), "<time>"),
    (re.compile(r"\b\d+\.\d+\.\d+\b"), "<version>"),
    (re.compile(r'(?<="trace_id":")[0-9a-f]{32}\b'), "<trace>"),
    (re.compile(r'("time":|d_at":)\d+(\.\d+)?'), r"\1<moment>"),
    (re.compile(r"(?<=^retry: )\d+$", re.M), "<milliseconds>"),
)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    file: str
    section: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name that its first line gives, `# chat.py`, if the block is a file."""
        found = re.match(r"# ([\w./-]+\.(?:py|yaml))\n", self.text)
        return found[1] if found else None

    def steps(self) -> list[tuple[str, str]]:
        """The commands of a console, each with the output that is shown below it."""
        found = re.split(r"^\$ (.*)\n", self.text, flags=re.M)
        assert not found[0], f"{self.where} does not begin with a command"
        return list(zip(found[1::2], found[2::2], strict=True))


def blocks(path: Path) -> Iterator[Block]:
    """Every fenced block of a document."""
    section, opened, lines = "", None, list[str]()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if opened is None and line.startswith("#"):
            section = line.lstrip("#").strip()
        elif opened is None and line.startswith("```"):
            opened, lines = (number, line.removeprefix("```")), []
        elif opened is not None and line == "```":
            yield Block(str(path.relative_to(ROOT)), section, *opened, "".join(f"{text}\n" for text in lines))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{path}:{opened} is never closed"


def tables(path: Path) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Every table of a document: the heading above it, its header, its rows."""
    heading, rows = "", list[list[str]]()
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            yield heading, rows[0], rows[2:]
            rows = []
        if line.startswith("#"):
            heading = line.lstrip("#").strip()


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)


class Place:
    """A folder with a state and a relay of its own, in which a reader follows a document."""

    def __init__(self, folder: Path, env: Mapping[str, str] = NOTHING) -> None:
        self.folder = folder
        self._up: Process | None = None
        self._ids: dict[str, str] = {}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HERMES_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
        port = free_port()
        relay = {"HERMES_RELAY__PORT": str(port), "HERMES_RELAY_URL": f"http://127.0.0.1:{port}"}
        self._env = {**clean, **relay, **env, "PATH": path}

    def play(self, shown: list[Block]) -> None:
        """Write the files, run the commands, and compare what they say with what is shown."""
        for block in shown:
            if block.file_name:
                (self.folder / block.file_name).write_text(block.text)
            elif block.language == "console":
                for command, expected in block.steps():
                    self._follow(block, command, expected)

    def up(self) -> str:
        """Start everything and return what it says until it is ready."""
        line = f"cd '{self.folder}' && exec hermes-async up"
        not_ours = dict.fromkeys((name for name in os.environ if name.startswith("HERMES_")), "")
        log = self.folder / "up.log"
        self._up = Process(["/bin/sh", "-c", line], log, {**not_ours, **self._env})
        self._up.wait_for_log("Ctrl-C", timeout=PATIENCE)
        return self._up.log

    def down(self) -> None:
        """Ctrl-C; it must end well."""
        if self._up is None:
            return
        try:
            self._up.signal(signal.SIGINT)
            assert self._up.wait(30) == 0, self._up.log
        finally:
            self._up.kill()

    def run(self, command: str) -> str:
        """Run a line of shell, which must succeed, and return what a terminal would show."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout

    def _follow(self, block: Block, command: str, expected: str) -> None:
        said = self.up() if command == "hermes-async up" else self.run(self._live(command))
        if not expected:
            return
        for shown, real in zip(_TASK_ID.findall(expected), _TASK_ID.findall(said), strict=False):
            self._ids.setdefault(shown, real)
        assert self._alike(said) == self._alike(self._live(expected)), f"{block.where}: $ {command}"

    def _live(self, text: str) -> str:
        """The text with the ids of this run in place of those that the document shows."""
        return _TASK_ID.sub(lambda found: self._ids.get(found[0], found[0]), text)

    def _alike(self, text: str) -> list[str]:
        text = text.replace(f"{self.folder}/", "")
        for pattern, name in _VARIES:
            text = pattern.sub(name, text)
        return [line.rstrip() for line in text.strip().splitlines()]

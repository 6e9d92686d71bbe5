"""A chat on a terminal: a line to type on that stays usable, running tasks above it, answers above those."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from hermes_async.chat.pieces import Piece, Text, ToolCalled, TurnBegan, TurnEnded
from hermes_async.cli.terminal.bars import Fragments, bars, cut
from hermes_async.cli.terminal.board import Board, short
from hermes_async.cli.terminal.markup import BOLD, DIM, PLAIN, Markup
from hermes_async.cli.terminal.slash import COMMANDS, Reply, Slash
from hermes_async.cli.terminal.voice import call_line, end_line, news_line
from hermes_async.cli.words import harmless
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.gap import Gap

RED, GREEN, YELLOW, CYAN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
_NEWS_COLOURS: Final = {
    "task.completed": GREEN,
    "task.failed": RED,
    "task.rejected": RED,
    "task.cancelled": YELLOW,
    "task.input_required": YELLOW,
}
#: Seconds between two drawings while nothing else moves, and that lines wait for others to be printed with.
_REFRESH, _TOGETHER = 0.5, 0.03
#: Letters of an answer without a line break that are looked at together, to break it.
_LOOKED_AT: Final = 2_000
_STYLE: Final = Style.from_dict(
    {
        "mark": "bold",
        "dim": "ansibrightblack",
        "who": "ansicyan",
        "bar": "ansigreen",
        "rest": "ansibrightblack",
        "asks": "ansiyellow bold",
    }
)


class Screen:
    """A voice, and an ear: the terminal.

    Args:
        board: the tasks.
        slash: what may be completed.
        history: where what was typed is kept; None: in memory.
        interrupt: called at Esc and Ctrl-C; returns whether there was something to interrupt.
    """

    def __init__(
        self, board: Board, slash: Slash, history: str | None, interrupt: Callable[[], bool]
    ) -> None:
        self._status = ""
        self._board = board
        self._interrupt = interrupt
        self._markup = Markup()
        self._tail = ""
        self._is_thinking = False
        #: What was typed and has no turn yet.
        self._waiting: list[str] = []
        self._typed: asyncio.Queue[str | None] = asyncio.Queue()
        self._lines: list[str] = []
        self._printing: asyncio.Task[None] | None = None
        kept: History = InMemoryHistory() if history is None else FileHistory(history)
        self._prompt: PromptSession[str] = PromptSession(
            message=self._above,
            placeholder=[("class:dim", "say something, or /help")],
            completer=SlashCompleter(slash, board),
            complete_while_typing=False,
            history=kept,
            key_bindings=self._keys(),
            style=_STYLE,
            erase_when_done=True,
            refresh_interval=_REFRESH,
            reserve_space_for_menu=4,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the screen in order, whoever prints."""
        with patch_stdout(raw=True):
            yield

    async def lines(self) -> AsyncIterator[str]:
        """Yield what is typed, to Ctrl-D."""
        # One prompt for all lines: between two of them the terminal would be its own master for a moment.
        self._prompt.default_buffer.accept_handler = self._accept
        prompting = asyncio.create_task(self._prompt.prompt_async(), name="hermes-chat-prompt")
        prompting.add_done_callback(lambda _: self._typed.put_nowait(None))
        try:
            while (said := await self._typed.get()) is not None:
                yield said
        finally:
            self.leave()
            with suppress(EOFError):
                await prompting

    def _accept(self, buffer: Buffer) -> bool:
        said = harmless(buffer.text).strip()  # a terminal of another encoding sends halves of characters
        if said.startswith("/"):
            self._print(f"{BOLD}› {harmless(said)}{PLAIN}")
        elif said:
            self._waiting.append(said)
        if said:
            self._typed.put_nowait(said)
        return False  # nothing of it stays on the line

    def show_status(self, text: str) -> None:
        """Show something behind the footer for the time being."""
        self._status = text
        self._prompt.app.invalidate()

    def leave(self) -> None:
        """End `lines`, now or as soon as they begin."""
        self._typed.put_nowait(None)
        app = self._prompt.app
        if app.is_running and app.future is not None and not app.future.done():
            app.exit(exception=EOFError)

    async def flush(self) -> None:
        """Print what is left to be printed."""
        self._end_line()
        while self._printing is not None and not self._printing.done():
            await asyncio.wait({self._printing})

    def piece(self, piece: Piece) -> None:
        """Show it."""
        if isinstance(piece, TurnBegan):
            self._is_thinking = True
            if piece.said is not None:
                self._echo(piece.said)
            for event in piece.news:
                self.news(event)
        elif isinstance(piece, Text):
            self._say(piece.text)
        elif isinstance(piece, ToolCalled):
            self._end_line()
            self._print(f"{DIM}› {call_line(piece)}{PLAIN}")
        elif isinstance(piece, TurnEnded):
            self._is_thinking = False
            self._end_line()
            if said := end_line(piece):
                self._print(f"{YELLOW if piece.how == 'interrupted' else RED}{said}{PLAIN}")
            self._markup = Markup()
        self._prompt.app.invalidate()

    def news(self, event: AnyEvent) -> None:
        """Print it on a line."""
        self._end_line()
        colour = _NEWS_COLOURS.get(event.type, CYAN)
        self._print(f"{colour}● {news_line(event, self._board.name_of(event))}{PLAIN}")

    def event(self, item: AnyEvent | Gap) -> None:
        """Draw the bars anew."""
        self._prompt.app.invalidate()

    def reply(self, said: str, reply: Reply) -> None:
        """Print its lines."""
        for each in reply.lines:
            self._print(harmless(each))

    def fault(self, error: Exception, said: str = "") -> None:
        """Print it."""
        self._end_line()
        if said:
            self._echo(said)
        self._print(f"{RED}{harmless(str(error))}{PLAIN}")

    def _echo(self, said: str) -> None:
        """Print what was typed: its turn has come."""
        if said in self._waiting:
            self._waiting.remove(said)
        self._print(f"{BOLD}› {harmless(said)}{PLAIN}")

    def note(self, text: str) -> None:
        """Print it."""
        self._end_line()
        self._print(f"{DIM}{harmless(text)}{PLAIN}")

    def _say(self, text: str) -> None:
        """Show words at the end of the answer; lines that are full go up."""
        *whole, self._tail = (self._tail + text).split("\n")
        for each in whole:
            self._print(self._markup.draw(each))
        width, start = self._width, 0
        while (
            get_cwidth(piece := self._tail[start : start + _LOOKED_AT]) >= width or len(piece) == _LOOKED_AT
        ):
            line, rest = broken(piece, width)
            self._print(self._markup.draw(line))
            start += len(piece) - len(rest)
        self._tail = self._tail[start:]

    def _end_line(self) -> None:
        if self._tail:
            self._print(self._markup.draw(self._tail))
            self._tail = ""

    def _print(self, line: str) -> None:
        self._lines.append(line)
        if self._printing is None or self._printing.done():
            self._printing = asyncio.create_task(self._print_all(), name="hermes-chat-print")

    async def _print_all(self) -> None:
        while self._lines:
            lines, self._lines = self._lines, []
            app = self._prompt.app
            # Not with prompt_toolkit's own ways to print: the terminal would be its own master meanwhile,
            # echo what is typed, and take a Ctrl-D for itself.
            if app.is_running:
                app.renderer.erase()
            app.output.enable_autowrap()
            app.output.write_raw("\r\n".join("\n".join([*lines, ""]).split("\n")))
            app.output.flush()
            app.invalidate()
            await asyncio.sleep(_TOGETHER)

    @property
    def _width(self) -> int:
        return max(20, self._prompt.app.output.get_size().columns)

    def _above(self) -> Fragments:
        """Return what stands above the line: the end of the answer that is under way, and the tasks."""
        drawn: Fragments = [("noinherit", f"{harmless(self._tail)}\n")] if self._tail else []
        if self._is_thinking and not self._tail:
            drawn.append(("class:dim", "…\n"))
        drawn += bars(self._board.rows.values(), self._width)
        drawn += [("class:dim", f"› {cut(harmless(said), self._width - 3)}\n") for said in self._waiting]
        if self._status:
            drawn.append(("class:dim", f"{cut(self._status, self._width)}\n"))
        return [*drawn, ("class:mark", "› ")]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        speaking = Condition(lambda: self._is_thinking)

        @keys.add("escape", eager=True, filter=speaking)
        def _(event: KeyPressEvent) -> None:
            self._interrupt()

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if self._interrupt():
                return
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                self.note("Ctrl-D leaves; tasks go on")

        return keys


class SlashCompleter(Completer):
    """Completes commands, subagents and the ids of tasks."""

    def __init__(self, slash: Slash, board: Board) -> None:
        self._slash = slash
        self._board = board

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what the word before the cursor may become."""
        text = document.text_before_cursor
        if not text.startswith("/"):
            return
        name, space, rest = text[1:].partition(" ")
        if not space:
            for each in self._slash.names:
                if each.startswith(name):
                    yield Completion(f"{each} ", start_position=-len(name), display=f"/{each}")
            return
        if " " in rest or name not in COMMANDS:
            return
        for word, meta in self._words(name):
            if word.startswith(rest):
                yield Completion(f"{word} ", start_position=-len(rest), display=word, display_meta=meta)

    def _words(self, name: str) -> Iterable[tuple[str, str]]:
        if name == "delegate":
            return [(each, "") for each in self._slash.subagents]
        if not COMMANDS[name].takes.startswith("ID"):
            return []
        rows = self._board.rows.values()
        chosen = [row for row in rows if row.question] if name == "answer" else rows
        return [(short(row.id), f"{row.name} {row.question or row.message}".strip()) for row in chosen]


def broken(text: str, width: int) -> tuple[str, str]:
    """Return what fits on a line of so many cells, up to a space if there is one, and the rest."""
    fits = max(1, len(cut(text, width)) - 1)
    space = text.rfind(" ", 1, fits + 1)
    place = space if space > 0 else fits
    return text[:place], text[place:].removeprefix(" ")

"""The conversation so far: always one that a model can be asked to go on with, also in its file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from hermes_async.adapters.file_lock import FileLock
from hermes_async.adapters.model.answers import whole
from hermes_async.chat.files import hold, let_go
from hermes_async.domain.errors import ConfigError

#: What a call has for a result as long as its own is not known.
UNKNOWN: Final = (
    "It is not known what came of this call: the chat ended meanwhile. `list` tells which tasks there are."
)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = 1
    session: str
    parent: str
    #: What was said and not answered.
    unanswered: str | None = None
    #: Entries of the inbox that a finished turn has dealt with, but that may not be acknowledged yet.
    used: list[int] = []
    messages: list[Any] = []
    #: Messages before these that are not kept.
    left_out: int = 0


class History:
    """The messages of one session, kept in memory or in a file that one chat at a time may hold."""

    def __init__(self, session_id: str, parent: str, path: Path | None = None) -> None:
        self.messages: list[ModelMessage] = []
        #: Messages before these, which the model is not sent any more.
        self.left_out = 0
        self.unanswered: str | None = None
        self.used: set[int] = set()
        self._session = session_id
        self._parent = parent
        self._path = path
        self._lock: FileLock | None = None
        #: A thread may still be writing when whoever waited for it was interrupted.
        self._writing = threading.Lock()

    def open(self) -> None:
        """Read the file, if there is one, and let nobody else.

        Raises:
            InvalidInput: another chat has it.
            ConfigError: it cannot be read, or nothing can be written beside it.
        """
        if self._path is None:
            return
        self._lock = hold(self._path, self._session)
        if self._path.exists():
            try:
                self._read(self._path)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let others have the file."""
        if self._path is not None and self._lock is not None:
            let_go(self._path, self._lock)
            self._lock = None

    def clear(self) -> None:
        """Forget what was said."""
        self.messages.clear()
        self.left_out = 0
        self.unanswered = None

    @property
    def is_unfinished(self) -> bool:
        """Whether it ends with something that the model has not answered."""
        return bool(self.messages) and isinstance(self.messages[-1], ModelRequest)

    @property
    def length(self) -> int:
        """How many messages there were, those that are left out among them."""
        return self.left_out + len(self.messages)

    @property
    def calls(self) -> Sequence[ToolCallPart]:
        """The calls of the newest answer."""
        last = self.messages[-1] if self.messages else None
        return last.tool_calls if isinstance(last, ModelResponse) else ()

    def last_answer(self) -> str:
        """Return what the parent said last."""
        for message in reversed(self.messages):
            if isinstance(message, ModelResponse) and message.text:
                return message.text
        return ""

    def ask(self, prompt: str) -> None:
        """Add what is said to the model."""
        self.messages.append(ModelRequest(parts=[UserPromptPart(whole(prompt))]))

    def unask(self, prompt: str) -> None:
        """Take a prompt back, unless there is something after it."""
        last = self.messages[-1]
        part = last.parts[0] if isinstance(last, ModelRequest) else None
        if isinstance(part, UserPromptPart) and part.content == whole(prompt):
            self.messages.pop()

    def answer(self, answer: ModelResponse) -> None:
        """Add what the model answered; half a character in it would spoil every request that follows."""
        parts = [_sound(part) for part in answer.parts]
        self.messages.append(replace(answer, parts=parts or [TextPart("")]))

    def leave_out(self, count: int) -> None:
        """Keep the oldest messages no longer."""
        del self.messages[:count]
        self.left_out += count

    def cut(self, text: str) -> None:
        """Add an answer that was interrupted."""
        said = f"{text} [interrupted]" if text else "[interrupted]"
        self.messages.append(ModelResponse(parts=[TextPart(whole(said))]))

    def returned(self, calls: Iterable[ToolCallPart], results: Iterable[str | None]) -> None:
        """Add what the calls of the newest answer returned, as far as it is known."""
        parts = [
            ToolReturnPart(call.tool_name, UNKNOWN if result is None else whole(result), call.tool_call_id)
            for call, result in zip(calls, results, strict=True)
        ]
        self.messages.append(ModelRequest(parts=list(parts)))

    def complete(self) -> None:
        """Give the calls of the newest answer a placeholder, if they have no results."""
        if self.calls:
            self.returned(self.calls, [None] * len(self.calls))

    def keep(self) -> None:
        """Write the file, whole or not at all; calls whose results are awaited get a placeholder in it."""
        if self._path is not None:
            with self._writing:
                self._write(self._path)

    def _write(self, path: Path) -> None:
        content = _File(
            session=self._session,
            parent=self._parent,
            unanswered=self.unanswered,
            used=sorted(self.used),
            messages=ModelMessagesTypeAdapter.dump_python(self._closed(), mode="json"),
            left_out=self.left_out,
        )
        draft = path.with_suffix(".draft")
        with open(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            json.dump(content.model_dump(), file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def _closed(self) -> list[ModelMessage]:
        """Return the messages in which every call has a result, and every question an answer."""
        closed = list(self.messages)
        if calls := self.calls:
            parts = [ToolReturnPart(call.tool_name, UNKNOWN, call.tool_call_id) for call in calls]
            closed.append(ModelRequest(parts=list(parts)))
        return closed

    def _read(self, path: Path) -> None:
        try:
            found = _File.model_validate_json(path.read_text(encoding="utf-8"))
            self.messages = ModelMessagesTypeAdapter.validate_python(found.messages)
        except (OSError, ValueError, ValidationError) as error:
            why = str(error).partition("\n")[0]
            raise ConfigError(
                f"{path}: cannot go on with this conversation ({why}); move the file away"
            ) from None
        if found.session != self._session:
            raise ConfigError(f"{path}: this is the conversation of another session; move the file away")
        self.unanswered = found.unanswered
        self.used = set(found.used)
        self.left_out = found.left_out


def _sound(part: ModelResponsePart) -> ModelResponsePart:
    """Return a part that has a UTF-8 form."""
    if isinstance(part, TextPart | ThinkingPart):
        return replace(part, content=whole(part.content))
    if isinstance(part, ToolCallPart) and isinstance(part.args, str):
        return replace(part, args=whole(part.args))
    return part

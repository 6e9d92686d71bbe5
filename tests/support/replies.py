"""What the scripted model is asked, and what it may answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tests.support.responses import as_messages

#: What a reply says that it has consumed, unless it says otherwise: input and output tokens.
TOKENS: Final = (100, 20)


@dataclass(frozen=True)
class Request:
    """One request, as it came."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return as_messages(self.body) if self.speaks_responses else list(self.body.get("messages", ()))

    @property
    def speaks_responses(self) -> bool:
        """True for OpenAI's newer API; all others speak chat completions."""
        return self.path.endswith("/responses")

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        return [tool.get("function", tool)["name"] for tool in self.body.get("tools", ())]

    @property
    def last(self) -> str:
        """The text of the last message."""
        return _text(self.messages[-1])

    def said(self, role: str) -> list[str]:
        """The texts of the messages of one role: system, user, assistant or tool."""
        return [_text(message) for message in self.messages if message["role"] == role]


@dataclass(frozen=True)
class Reply:
    """What a request gets."""

    #: Each is one piece of the stream.
    chunks: tuple[str, ...] = ()
    #: Tools to call: their names and arguments.
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    status: int = 200
    #: What an error says.
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Seconds before the first byte, and between two pieces.
    delay: float = 0.0
    pause: float = 0.0
    #: Input and output tokens; None: it does not say.
    tokens: tuple[int, int] | None = TOKENS
    #: What happens after the pieces instead of an end: silence, or a connection that breaks.
    ending: Literal["", "hang", "break"] = ""
    #: Why it says that it has ended; by default because all is said, or to have tools called.
    finish: str = ""
    #: The body as it goes over the wire, instead of all that, and what it is said to be.
    raw: str | None = None
    content_type: str = "text/event-stream"

    def but(self, **changes: Any) -> Reply:
        return replace(self, **changes)


def say(*chunks: str, **more: Any) -> Reply:
    """Text; streamed, each chunk is one event."""
    return Reply(chunks=chunks, **more)


def call(name: str, /, **arguments: Any) -> Reply:
    """A call of one tool."""
    return Reply(calls=((name, arguments),))


def calls(*wanted: tuple[str, dict[str, Any]]) -> Reply:
    """Calls of several tools at once."""
    return Reply(calls=wanted)


def status(code: int, **headers: str) -> Reply:
    """An error; `status(429, retry_after="2")`."""
    return Reply(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})


def too_long() -> Reply:
    """The error of a model that cannot read so much, as most servers word it."""
    return Reply(status=400, message="This model's maximum context length is 4096 tokens.")


def hang(*chunks: str) -> Reply:
    """Some text, and then nothing more."""
    return Reply(chunks=chunks, ending="hang")


def broken(*chunks: str) -> Reply:
    """Some text, and then the connection breaks."""
    return Reply(chunks=chunks, ending="break")


def raw(body: str, content_type: str = "text/event-stream") -> Reply:
    """Whatever a server may write."""
    return Reply(raw=body, content_type=content_type)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

"""A parent that chats: it talks with a person, delegates, and takes a turn when its tasks have news."""

from importlib import import_module
from typing import Any

__all__ = ["ChatParent"]


def __getattr__(name: str) -> Any:
    """Import what needs the extra `llm`, and seconds, only when it is asked for."""
    if name == "ChatParent":
        return import_module("hermes_async.chat.parent").ChatParent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

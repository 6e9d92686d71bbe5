"""Delegate to subagents without ever blocking the chat."""

__version__ = "0.1.0"

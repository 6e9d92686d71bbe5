"""The tool `web_search`: over DuckDuckGo and Wikipedia without a key, or over a SearXNG of one's own."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from hermes_async.adapters.tools.options import ToolOptions
from hermes_async.core.tool import Tool

#: Seconds, with those in which it waits for its turn.
TIMEOUT: Final = 30.0


def make(options: ToolOptions) -> Tool:
    """Return the tool; which one is needed decides what must be installed."""
    if options.searxng_url is None:
        return Tool("web_search", import_module(f"{__package__}.duckduckgo").web_search, TIMEOUT)
    searxng = import_module(f"{__package__}.searxng").Searxng(options.searxng_url)
    return Tool("web_search", searxng.web_search, TIMEOUT)

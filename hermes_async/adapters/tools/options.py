"""What the operator says of the tools that come with the project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ToolOptions:
    """What the operator says of the tools that come with the project.

    Args:
        searxng_url: the SearXNG that `web_search` asks; None: DuckDuckGo and Wikipedia.
        fetch_allow: `host:port` of servers that may be on private networks, for `web_fetch`.
    """

    searxng_url: str | None = None
    fetch_allow: frozenset[str] = frozenset()


NO_OPTIONS: Final = ToolOptions()

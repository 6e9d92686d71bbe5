"""What is away is told of once, and once when it is back, however many ask for it meanwhile."""

from __future__ import annotations

import logging
import time

from hermes_async.domain.errors import HermesError


class Outage:
    """Tells a log that something cannot go on, and that it can again.

    Args:
        logger: the log.
        what: cannot go on, as the beginning of a sentence.
    """

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._since: float | None = None

    def began(self, error: Exception) -> None:
        """It was tried in vain: a warning if it went well before, with a traceback if nobody foresaw this."""
        level = logging.WARNING if self._since is None else logging.DEBUG
        self._since = self._since or time.monotonic()
        unforeseen = None if isinstance(error, HermesError) else error
        self._logger.log(level, "%s cannot go on yet: %s", self._what, error, exc_info=unforeseen)

    def ended(self) -> None:
        """It went well."""
        if self._since is not None:
            self._logger.info("%s went on after %.0f s", self._what, time.monotonic() - self._since)
            self._since = None

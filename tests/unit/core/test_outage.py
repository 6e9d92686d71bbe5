"""An outage is two lines of a log, however long it is."""

from __future__ import annotations

import logging

import pytest

from hermes_async.core.outage import Outage
from hermes_async.domain.errors import StoreUnavailable

LOGGER = logging.getLogger("hermes.test")


def warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in caplog.records if record.levelno > logging.DEBUG]


def test_it_is_told_once_that_something_waits_and_once_that_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER.name)
    outage = Outage(LOGGER, "the work")
    outage.ended()
    for _ in range(2):
        caplog.clear()
        for attempt in range(3):
            outage.began(StoreUnavailable(f"away {attempt}"))
        outage.ended()
        outage.ended()
        assert warnings(caplog) == [
            ("WARNING", "the work cannot go on yet: away 0"),
            ("INFO", "the work went on after 0 s"),
        ]
        assert len(caplog.records) == 4  # the others are for who debugs
        assert not any(record.exc_info for record in caplog.records)


def test_what_nobody_foresaw_shows_where_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(LOGGER, "the work")
    outage.began(ValueError("what?"))
    assert caplog.records[0].exc_info

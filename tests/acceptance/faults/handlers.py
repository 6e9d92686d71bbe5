"""Callbacks that note in the ledger that they were called."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hermes_async.sdk import ParentContext
from tests.acceptance.faults.agents import ledger

#: Seconds that a call takes: enough for a kill to find it.
TAKES = 0.05


def told(news: Any, parent: ParentContext) -> None:
    """Say in the session that this task has ended."""
    ledger().write("called", session=parent["session_id"], task=parent["task_id"], key=parent["callback_id"])
    time.sleep(TAKES)
    parent["session"].send_message(parent["callback_id"])


async def going(news: Any, parent: ParentContext) -> None:
    """Hear of progress."""
    ledger().write("called", session=parent["session_id"], task=parent["task_id"], key=parent["callback_id"])
    await asyncio.sleep(TAKES)

"""Whether a parent with little to do waits behind one with a lot, and whether a limit is ever exceeded.

Twenty light parents come while a heavy one has thousands of tasks under way. The ideal is what a perfect
round robin among all parents would give: in each turn one task of every parent, over the slots there are,
with no cost but the tasks' own time. A light parent with ten tasks is then done after ten such turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.figure import Figure, Goal, Row, Sample, Sides
from benchmarks.stage import Stage
from benchmarks.stamps import Stamp, Stamps
from hermes_async.bootstrap import connect
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session

#: Tasks of the heavy parent.
HEAVY, QUICK_HEAVY = 10_000, 1_000
#: Light parents, and tasks of each.
PARENTS, EACH = 20, 10
#: Slots of the one worker, and seconds for which each task sleeps: the slots are short, not the processor.
SLOTS, NAP = 10, 0.02
IDEAL = EACH * (PARENTS + 1) * NAP / SLOTS
#: What the parent `chat` may run at once of its subagent `limited` (agents.yaml), and how many it dispatches.
LIMIT, LIMITED = 5, 100
#: Seconds for each part.
PATIENCE = 120.0


@contextmanager
def _open(stage: Stage, quick: bool) -> Iterator[Sides]:
    heavy = QUICK_HEAVY if quick else HEAVY
    yield Sides(lambda: _hermes(stage, heavy))


def _hermes(stage: Stage, heavy: int) -> Sample:
    stage.flush()
    with stage.ours(slots=SLOTS):  # ends with the run: most of the heavy parent's tasks are never run
        return asyncio.run(_both(stage, heavy))


async def _both(stage: Stage, heavy: int) -> Sample:
    async with connect(stage.settings) as hermes:
        at_once = await _at_once(stage, hermes)
        worst = await _worst(stage, hermes, heavy)
    return {"at_once": at_once, "worst": worst, "stretch": worst / IDEAL}


async def _at_once(stage: Stage, hermes: Hermes) -> int:
    """Return how many tasks of a limited subagent ran at once, at most, in one of two sessions."""
    sessions = [hermes.session(f"limited-{number}", parent="chat") for number in range(2)]
    stamps = Stamps(stage.stamps)
    await _dispatch(sessions, "limited", LIMITED)
    found = await asyncio.to_thread(stamps.wait, len(sessions) * LIMITED, PATIENCE)
    return max(overlap(_of(found, index, LIMITED)) for index in range(len(sessions)))


async def _worst(stage: Stage, hermes: Hermes, heavy: int) -> float:
    """Return after how many seconds the last of the light parents was done."""
    await hermes.session("heavy").dispatch_many("rest", [{"seconds": NAP}] * heavy)
    light = [hermes.session(f"light-{number}") for number in range(PARENTS)]
    stamps = Stamps(stage.stamps)
    began = time.monotonic()
    await _dispatch(light, "nap", EACH)
    found = await asyncio.to_thread(stamps.wait, PARENTS * EACH, PATIENCE)
    return max(stamp.ended for stamp in found.values()) - began


async def _dispatch(sessions: Sequence[Session], name: str, each: int) -> None:
    """Have every session dispatch its tasks, all at once; the numbers tell whose they are."""
    parts = enumerate(sessions)
    await asyncio.gather(
        *(
            session.dispatch_many(name, [{"number": index * each + n, "seconds": NAP} for n in range(each)])
            for index, session in parts
        )
    )


def _of(found: dict[int, Stamp], index: int, each: int) -> list[Stamp]:
    return [found[number] for number in range(index * each, (index + 1) * each)]


def overlap(stamps: Sequence[Stamp]) -> int:
    """Return how many of these were running at once, at most."""
    moments = sorted(
        [(stamp.began, 1) for stamp in stamps] + [(stamp.ended, -1) for stamp in stamps],
    )
    running = most = 0
    for _, step in moments:
        running += step
        most = max(most, running)
    return most


FIGURE = Figure(
    "fairness",
    [
        Row("stretch", "light parent beside a heavy one, x ideal", "", Goal("≤", 3)),
        Row("worst", f"  done after (ideal: {IDEAL:.2g} s)", "s"),
        Row("at_once", f"most at once of a subagent limited to {LIMIT}", "", Goal("≤", LIMIT)),
    ],
    _open,
)

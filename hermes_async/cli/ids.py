"""The ids of tasks as people type them: a beginning will do that fits no other task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hermes_async.cli.words import line
from hermes_async.core.hermes import Hermes
from hermes_async.core.ids import new_task_id
from hermes_async.domain.errors import UnknownTask

#: Tasks, the newest of all, among which a beginning is looked for.
KNOWN: Final = 1_000
_WHOLE: Final = len(new_task_id(""))
#: Ids that are told when several begin alike.
_TOLD: Final = 3


async def whole_id(hermes: Hermes, said: str) -> str:
    """Return the id of the task that somebody means; a whole id is not looked for.

    Raises:
        UnknownTask: no task begins so, or more than one does.
    """
    if len(said) >= _WHOLE:
        return said
    known = [task.id for task in await hermes.tasks(limit=KNOWN)]
    one = only(said, known) if said else None
    if one is None:
        among = f" among the newest {KNOWN:,}" if len(known) == KNOWN else ""
        raise UnknownTask(
            f"no task begins with {said!r}{among}; `hermes-async task list` shows the tasks that there are"
        )
    return one


def only(said: str, ids: Iterable[str]) -> str | None:
    """Return the one id that begins so, with or without its first part; None: there is none.

    Raises:
        UnknownTask: there are several.
    """
    found = [each for each in ids if each.startswith(said) or each.partition("-")[2].startswith(said)]
    if len(found) > 1:
        told = ", ".join(found[:_TOLD]) + (", …" if len(found) > _TOLD else "")
        raise UnknownTask(f"{len(found)} tasks begin with {line(said, 40)}: {told}; say more of the id")
    return found[0] if found else None

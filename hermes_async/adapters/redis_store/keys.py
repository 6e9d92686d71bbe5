"""The names of all keys, in one place.

Every key is `<namespace>:{pNN}:<kind>` or `<namespace>:{pNN}:<kind>:<id>`. The hash tag is the partition of
the session, so that a session's keys share a slot and the sessions spread over a cluster.

| kind                | type        | holds                                                            |
|---------------------|-------------|------------------------------------------------------------------|
| `task:<id>`         | hash        | the record                                                       |
| `session:<id>`      | hash        | `seq`, the number of the session's newest event; the last post   |
| `events:<id>`       | stream      | the session's log; an entry's id is `<seq>-0`                    |
| `inbox:<id>`        | stream      | what the parent has not acknowledged, with the same ids          |
| `nudge:<id>`        | channel     | "look at the log"; may be lost                                   |
| `leases`            | sorted set  | running tasks by the ms at which their lease runs out            |
| `due`               | sorted set  | queued tasks by the ms at which they belong on the broker        |
| `ended`             | sorted set  | tasks by the ms of their end                                     |
| `tasks`             | sorted set  | all tasks by the ms of their birth                               |
| `tasks-of:<id>`     | sorted set  | the tasks of a session                                           |
| `by-agent:<name>`   | sorted set  | the tasks of an agent                                            |
| `by-status:<s>`     | sorted set  | the tasks in a status, by the ms of their birth                  |
| `sessions`          | sorted set  | sessions by the ms of their newest event                         |
| `idem:<id>:<key>`   | string      | the task that a session's idempotency key stands for             |
"""

from __future__ import annotations

from hermes_async.core.ids import PARTITIONS, partition, partition_of_task


class Keys:
    """Key names under one namespace."""

    def __init__(self, namespace: str = "hermes") -> None:
        #: The prefix of each partition, by its number.
        self.prefixes = [f"{namespace}:{{p{number:02d}}}:" for number in range(PARTITIONS)]

    def of_session(self, session_id: str) -> str:
        """Return the prefix of a session's keys."""
        return self.prefixes[partition(session_id)]

    def of_task(self, task_id: str) -> str:
        """Return the prefix of a task's keys."""
        return self.prefixes[partition_of_task(task_id)]

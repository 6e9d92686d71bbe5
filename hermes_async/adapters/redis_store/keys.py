"""The names of all keys, in one place.

Every key is `<namespace>:{pNN}:<kind>` or `<namespace>:{pNN}:<kind>:<id>`. The hash tag is the partition of
the session, so that a session's keys share a slot and the sessions spread over a cluster.

| kind                | type        | holds                                                            |
|---------------------|-------------|------------------------------------------------------------------|
| `task:<id>`         | hash        | the record, and what its tree has consumed, if it has limits     |
| `session:<id>`      | hash        | `seq`, the number of its newest event; `fence`                   |
| `events:<id>`       | stream      | the session's log; an entry's id is `<seq>-0`                    |
| `inbox:<id>`        | stream      | what the parent has not acknowledged, with the same ids          |
| `recent:<id>`       | sorted set  | the ids of its newest messages, also to its tasks, by `seq`      |
| `nudge:<id>`        | channel     | "look at the log"; may be lost                                   |
| `messages:<id>`     | stream      | what was said to a task, with the ids of its session's log       |
| `call:<id>`         | channel     | "look at the task"; may be lost                                  |
| `leases`            | sorted set  | running tasks by the ms at which their lease runs out            |
| `due`               | sorted set  | tasks that wait for a retry by the ms at which they go on        |
| `deadlines`         | sorted set  | `<reason>/<task>` by the ms at which the task is to end so       |
| `children:<id>`     | list        | the tasks that a task has dispatched, oldest first               |
| `ended`             | sorted set  | tasks without rows in the ledger by the ms of their end          |
| `tasks-of:<id>`     | sorted set  | the tasks of a session                                           |
| `by-agent:<name>`   | sorted set  | the tasks of an agent                                            |
| `by-status:<s>`     | sorted set  | the tasks in a status, by the ms of their birth                  |
| `sessions`          | sorted set  | sessions by the ms of their first event, or of their last look   |
| `idem:<c>:<key>`    | string      | the task that an idempotency key stands for in a circle          |
| `callback:<id>`     | hash        | a row of the ledger; `kept:<key>`: what its effects came to      |
| `line:<line>`       | sorted set  | the rows of a line of the ledger by `seq`                        |

Circles of idempotency keys that are wider than a session have theirs at `<namespace>:idem:<c>:<key>`.
`<namespace>:revoked:<name>` is there for a token of the relay that is revoked, until it would have expired.

The gate is one for all sessions. Its keys are `<namespace>:gate:<kind>`, some with `:<id>`, and
with them the state is at home on one Redis: limits that hold over all sessions and a pen that writes at once
cannot be spread over many. A line is `<lane>/<subagent>/<session>`.

| kind                | type        | holds                                                            |
|---------------------|-------------|------------------------------------------------------------------|
| `admitted:<lane>`   | set         | the tasks that are on the broker or running                      |
| `sent`              | sorted set  | those on the broker, by the ms at which to send them again       |
| `slots:<line>`      | set         | those of a session and subagent (no lane) with a limit           |
| `slots-of:<agent>`  | set         | those of an agent with a limit                                   |
| `line:<line>`       | sorted set  | who waits, by urgency, then age                                  |
| `ring:<lane>`       | sorted set  | the lines that take part, by urgency of their head, then turn    |
| `parked:<agent>`    | sorted set  | lines that wait for a slot of the agent                          |
| `turns`             | hash        | the next turn of each session; under no name the turn it is      |
| `workers:<lane>`    | sorted set  | workers by the ms at which they count as gone                    |
| `sizes`             | hash        | how many tasks each of them can run at once                      |
| `counts`            | hash        | the sum of that for each lane; `waiting`: how many are in lines  |
| `leader`            | string      | the worker whose janitor sweeps                                  |
| `swept`             | hash        | what all janitors have done                                      |

So is the ledger of callbacks. Its rows and lines are with their session, the rest is
`<namespace>:ledger:<kind>`. A line is `p<nn>/<session>`, a task, or a webhook's row.

| kind                | type        | holds                                                            |
|---------------------|-------------|------------------------------------------------------------------|
| `ready:<whom>`      | sorted set  | lines of `functions` or `webhooks` by the ms at which to claim   |
| `claims`            | hash        | `<fence>/<row>` of each line that somebody has claimed           |
| `waiting`           | sorted set  | rows that are in lines, by the ms of their filing                |
| `dead`              | sorted set  | rows that were given up, by the ms of that                       |
| `callers`           | sorted set  | processes that make calls by the ms at which they count as gone  |
| `nudge`             | channel     | "a line is ready"; may be lost                                   |
| `failures:<e>`      | string      | how often an endpoint has failed in a row; expires               |
| `closed:<e>`        | string      | there while an endpoint is not to be called; expires             |

`<namespace>:metrics` is a hash with what was counted since the state is new (`core/metrics.py`): the one key
that stays when all else is forgotten. It grows with the number of agents alone.
"""

from __future__ import annotations

from hermes_async.core.ids import PARTITIONS, partition, partition_of_task
from hermes_async.domain.agent import NAMESPACE
from hermes_async.domain.idempotency import circle_of, rule_of
from hermes_async.domain.task import Birth


class Keys:
    """Key names under one namespace."""

    def __init__(self, namespace: str = NAMESPACE) -> None:
        #: The prefix of the gate's keys.
        self.gate = f"{namespace}:gate:"
        #: The prefix of the ledger's keys that are not a session's.
        self.ledger = f"{namespace}:ledger:"
        #: What was counted.
        self.metrics = f"{namespace}:metrics"
        #: The prefix of each partition, by its number.
        self.prefixes = [f"{namespace}:{{p{number:02d}}}:" for number in range(PARTITIONS)]

        #: The prefix of what belongs to no partition.
        self._root = f"{namespace}:"
        #: The prefix of the names of tokens that are revoked.
        self._revoked = f"{namespace}:revoked:"

    def revoked(self, token: str) -> str:
        """Return the key that is there while a token is revoked, by the token's name."""
        return self._revoked + token

    def idempotency(self, birth: Birth, key: str) -> str:
        """Return the key under which an idempotency key stands for a task."""
        within = self.of_session(birth.session_id) if rule_of(birth).scope == "session" else self._root
        return f"{within}idem:{circle_of(birth)}:{key}"

    def of_session(self, session_id: str) -> str:
        """Return the prefix of a session's keys."""
        return self.prefixes[partition(session_id)]

    def of_task(self, task_id: str) -> str:
        """Return the prefix of a task's keys."""
        return self.prefixes[partition_of_task(task_id)]

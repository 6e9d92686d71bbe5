"""A callback that fails twice: its mail goes out once, and what it says is said once. Run it as it is."""

from __future__ import annotations

import asyncio
import logging

from hermes_async import ParentContext, TaskContext, TaskResult, subagent
from hermes_async.testing import LocalHermes


@subagent(callbacks={"on_complete": "mail_report"})
async def report(ctx: TaskContext, topic: str) -> str:
    """Write a report."""
    return f"all about {topic}"


def mail_report(result: TaskResult, parent: ParentContext) -> None:
    """Send a mail once, whatever happens after it, and tell the parent when all is done."""
    print(f"try {parent['attempt']} of {parent['callback_id'].partition(':')[2]}")
    receipt = parent.once("mail", send_mail)
    parent["session"].send_message(f"{result.output}: {receipt}")
    if parent["attempt"] < 3:
        raise ConnectionError("the archive does not answer")


def send_mail() -> str:
    """Do what must not be done twice."""
    print("a mail goes out")
    return "mailed as number 17"


async def main() -> None:
    """In a project, `hermes_callbacks/` has the function, and `hermes-async up` calls it."""
    logging.getLogger("hermes.callbacks").setLevel(logging.ERROR)  # it would tell of each failed try
    async with LocalHermes(report, callbacks={"mail_report": mail_report}) as hermes:
        session = hermes.session("chat-1")
        await session.dispatch("report", topic="tea")
        async for event in session.events():
            if event.type == "session.message":
                print("the parent hears:", event.data.text)
            if event.type == "callback.succeeded":
                return


if __name__ == "__main__":
    asyncio.run(main())

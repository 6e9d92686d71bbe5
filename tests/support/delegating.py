"""A scripted model that delegates what the user wants, and reports the news of it."""

from __future__ import annotations

import json
import re

from tests.support.model import Reply, Request, call, say


def delegating(request: Request) -> Reply:
    """Have `research` do what the user says last, and tell the user of the task and of its end."""
    if request.messages[-1]["role"] == "tool":
        return say("I have started ", json.loads(request.last)["task_id"], ". What else?")
    if "<subagent_news>" in request.last:
        lines = (line for line in request.last.splitlines() if line.startswith("{"))
        return say("It has ended: ", *(str(json.loads(line)["output"]) for line in lines))
    return call("delegate", subagent="research", input=re.sub(r"^Find out about |\.$", "", request.last))

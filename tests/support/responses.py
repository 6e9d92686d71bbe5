"""The wire of OpenAI's Responses API, streamed, for the scripted model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ids = itertools.count(1)


def as_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request, as those of chat completions are."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    first = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    return [*first, *(message for item in items if (message := _message(item)))]


def _message(item: Mapping[str, Any]) -> dict[str, Any] | None:
    if item.get("type") == "function_call_output":
        return {"role": "tool", "content": item["output"], "tool_call_id": item["call_id"]}
    return {"role": item["role"], "content": item["content"]} if "role" in item else None


def as_events(
    model: str, chunks: Sequence[str], calls: Sequence[tuple[str, Any]], tokens: tuple[int, int] | None
) -> Iterator[dict[str, Any]]:
    """The events of a stream; each chunk of text is one."""
    response = {
        "id": f"resp_{next(_ids)}",
        "object": "response",
        "created_at": 1,
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "status": "in_progress",
    }
    numbers = itertools.count()
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    output = []
    if chunks:
        output.append(_text(0, chunks, events))
    for index, (name, arguments) in enumerate(calls, len(output)):
        output.append(_call(index, name, json.dumps(arguments), events))
    done = {**response, "status": "completed", "output": output}
    if tokens is not None:
        done["usage"] = {
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "total_tokens": sum(tokens),
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
    events.append({"type": "response.completed", "response": done})
    for event in events:
        yield {**event, "sequence_number": next(numbers)}


def _text(index: int, chunks: Sequence[str], events: list[dict[str, Any]]) -> dict[str, Any]:
    item: dict[str, Any] = {"id": f"msg_{next(_ids)}", "type": "message", "role": "assistant", "content": []}
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
    added = {"type": "response.output_item.added", "output_index": index}
    events.append({**added, "item": {**item, "status": "in_progress"}})
    events.append({"type": "response.content_part.added", **at, "part": part})
    events += ({"type": "response.output_text.delta", **at, "delta": each, "logprobs": []} for each in chunks)
    text = "".join(chunks)
    events.append({"type": "response.output_text.done", **at, "text": text, "logprobs": []})
    done = {**item, "status": "completed", "content": [{**part, "text": text}]}
    events.append({"type": "response.output_item.done", "output_index": index, "item": done})
    return done


def _call(index: int, name: str, arguments: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    number = next(_ids)
    item = {"id": f"fc_{number}", "type": "function_call", "call_id": f"call_{number}", "name": name}
    added = {**item, "arguments": "", "status": "in_progress"}
    events.append({"type": "response.output_item.added", "output_index": index, "item": added})
    at = {"item_id": item["id"], "output_index": index}
    events.append({"type": "response.function_call_arguments.delta", **at, "delta": arguments})
    events.append({"type": "response.function_call_arguments.done", **at, "arguments": arguments})
    done = {**item, "arguments": arguments, "status": "completed"}
    events.append({"type": "response.output_item.done", "output_index": index, "item": done})
    return done

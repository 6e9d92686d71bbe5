"""The same with plain function calling. Run: python examples/07_function_calling.py"""

import asyncio

from openai import AsyncOpenAI
from tea import research

from hermes_async import Delegation
from hermes_async.testing import LocalHermes


async def turn(client, tools, messages):
    while True:
        answer = await client.chat.completions.create(
            model="gpt-4o-mini", messages=messages, tools=tools.schemas
        )
        said = answer.choices[0].message
        messages.append(said)
        if not said.tool_calls:
            return said.content
        for call in said.tool_calls:
            result = await tools.call(call.function.name, call.function.arguments, call_id=call.id)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


async def main():
    async with LocalHermes(research) as hermes, AsyncOpenAI() as client:
        session = hermes.session("chat-1")
        tools = Delegation(session)
        messages = [{"role": "system", "content": tools.instructions}]
        messages.append({"role": "user", "content": "Find out about tea."})
        print(await turn(client, tools, messages))
        batch = await anext(session.batches())
        messages.append({"role": "user", "content": tools.news(batch)})
        print(await turn(client, tools, messages))
        await batch.ack()


asyncio.run(main())

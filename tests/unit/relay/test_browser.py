"""hermes.js in a real Chromium over the real socket.io-client: every event once and in order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.relay.line import Limits
from tests.support.browser import Page, ScriptFailed, chromium, page_of, socket_io
from tests.support.documents import blocks
from tests.support.proxy import proxy_to
from tests.support.servers import ROOT, free_port
from tests.unit.relay.conftest import (
    MakeStore,
    Station,
    finish,
    hermes_over,
    new_task,
    only_memory,
    progress,
    say,
    token,
)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

HTML = """
<!doctype html>
<script type="importmap">{ "imports": { "socket.io-client": "/socket.io.js" } }</script>
"""
LOAD = """
window.hermes = await import("/hermes.js");
window.tokens = [TOKEN];
window.connections = 0;
const fresh = () => {
  connections += 1;
  return tokens.length > 1 ? tokens.shift() : tokens[0];
};
window.client = new hermes.RelayClient(location.origin, fresh, { timeout: 60_000 });
window.take = async (what, last, pause = () => {}) => {
  const taken = [];
  for await (const item of client.follow(what)) {
    taken.push(item);
    await pause(item);
    if (item.seq === last) break;
  }
  return taken;
};
"""


#: In the place of socket.io-client: each connection brings the batches of one list of `window.script`.
FAKE = """
window.asked = [];
window.acknowledged = 0;
export const io = () => {
  const batches = script.shift();
  const heard = {};
  const next = () => {
    const [seqs, gap, tasks] = batches.shift() ?? [];
    if (!seqs) return heard.disconnect();
    const snapshot = gap ? { seq: gap[1], tasks, more: false } : null;
    const events = seqs.map((seq) => ({ seq, type: "session.message" }));
    const acknowledge = () => (acknowledged++, setTimeout(next));
    heard.events({ events, gap: gap ?? null, snapshot, end: false }, acknowledge);
  };
  const emitWithAck = async (_, wanted) => (asked.push(wanted.after), setTimeout(next), { ok: true });
  setTimeout(() => heard.connect());
  return {
    on: (name, hear) => (heard[name] = hear),
    disconnect: () => {},
    io: { engine: { on: () => {} } },
    timeout: () => ({ emitWithAck }),
  };
};
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    chromium()
    return socket_io(tmp_path_factory.mktemp("npm"))


@pytest.fixture
async def page(library: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Page]:
    async with page_of(chromium(), tmp_path / "profile") as page:
        yield page


async def load(page: Page, port: int, library: str, shown: str) -> None:
    """Open a page that seems to come from the relay, as `/hermes.js` does."""
    await page.serve({"/page": ("text/html", HTML), "/socket.io.js": ("text/javascript", library)})
    await page.visit(f"http://127.0.0.1:{port}/page")
    await page.run(LOAD.replace("TOKEN", json.dumps(shown)))


async def log_of(hermes: Hermes, session: str) -> list[dict[str, Any]]:
    events = (await hermes.store.events(session, 0, 10_000)).events
    return [event.model_dump(mode="json") for event in events]


async def test_the_list_is_the_log_whatever_breaks(hermes: Hermes, page: Page, library: str) -> None:
    count = 400
    async with Station(hermes) as relay:
        with proxy_to(relay.port) as proxy:
            await load(page, proxy.port, library, token("s"))
            taking = asyncio.create_task(page.run(f"return take({{ session: 's' }}, {count})"))
            for number in range(1, count + 1):
                await say(hermes, "s", 1, start=number)
                await asyncio.sleep(0.002)
                if number % 20 == 0:
                    proxy.cut()
                if number in (150, 350):
                    await relay.stop()
                    await relay.start()
            assert await taking == await log_of(hermes, "s")
            assert await page.run("return connections") > 3
            resumed = await page.run(f"return take({{ session: 's', after: {count - 7} }}, {count})")
            assert [event["seq"] for event in resumed] == list(range(count - 6, count + 1))


@only_memory
async def test_who_is_slow_is_cut_off_and_misses_nothing(hermes: Hermes, page: Page, library: str) -> None:
    await say(hermes, "s", 300)
    async with Station(hermes, Limits(ack_timeout=0.1)) as relay:
        await load(page, relay.port, library, token("s"))
        pause = "(event) => new Promise((done) => setTimeout(done, event.seq % 100 ? 0 : 400))"
        taken = await page.run(f"return take({{ session: 's' }}, 300, {pause})")
        assert taken == await log_of(hermes, "s")
        assert await page.run("return connections") > 2


@only_memory
async def test_a_trimmed_place_gives_a_gap(make_store: MakeStore, page: Page, library: str) -> None:
    async with hermes_over(make_store(10)) as hermes, Station(hermes) as relay:
        task = await new_task(hermes, "s")
        await finish(hermes, task)
        await say(hermes, "s", 400)
        await load(page, relay.port, library, token("s"))
        kept = await log_of(hermes, "s")
        gap, *rest = await page.run("return take({ session: 's', after: 3 }, 403)")
        assert rest == kept
        assert (gap["type"], gap["first"], gap["last"], gap["asOf"]) == ("gap", 4, kept[0]["seq"] - 1, 403)
        assert gap["snapshot"][task.id]["status"] == "cancelled"


@only_memory
async def test_what_comes_twice_is_dropped_and_what_is_missing_is_fetched(
    hermes: Hermes, page: Page, library: str
) -> None:
    first = [[[1, 2]], [[2, 3]], [[5]]]  # 4 is missing
    second = [[[3, 4]], [[], [5, 8], [{"id": "t"}]], [[9]], [[], [5, 8], [{"id": "old"}]], [[8, 9, 10]]]
    async with Station(hermes) as relay:
        await load(page, relay.port, FAKE, "")
        await page.run(f"window.script = {json.dumps([first, second])}")
        taken = await page.run("return take({ session: 's' }, 10)")
        assert [one.get("last", one.get("seq")) for one in taken] == [1, 2, 3, 4, 8, 9, 10]
        assert taken[4]["snapshot"] == {"t": {"id": "t"}}
        assert await page.run("return [asked, acknowledged]") == [[0, 3], 2 + 4]


@only_memory
async def test_a_task_is_followed_to_its_end(hermes: Hermes, page: Page, library: str) -> None:
    task = await new_task(hermes, "s")
    async with Station(hermes, Limits(ack_timeout=300)) as relay:  # only what is acknowledged goes on
        await load(page, relay.port, library, token("s"))
        taking = asyncio.create_task(page.run(f"return take({{ task: '{task.id}' }})"))
        await progress(hermes, task, range(1, 400))
        await finish(hermes, task)
        assert await taking == await log_of(hermes, "s")


@only_memory
async def test_tokens_expire_and_are_renewed(hermes: Hermes, page: Page, library: str) -> None:
    await say(hermes, "s", 5)
    async with Station(hermes) as relay:
        await load(page, relay.port, library, token("s"))
        await page.run(
            f"tokens = [{token('s', ttl=2)!r}, {token('s')!r}]"
        )  # one that is fresh when it is used
        taking = asyncio.create_task(page.run("return take({ session: 's' }, 6)"))
        await page.until("return connections > 1", True)
        await say(hermes, "s", 1, start=6)
        assert await taking == await log_of(hermes, "s")
        fixed = f"client = new hermes.RelayClient(location.origin, {token('s', ttl=1)!r});"
        with pytest.raises(ScriptFailed, match=r"Unauthorized: the token has expired"):
            await page.run(f"{fixed} return take({{ session: 's' }})")


@only_memory
async def test_what_is_refused_is_an_error(hermes: Hermes, page: Page, library: str) -> None:
    task = await new_task(hermes, "theirs")
    async with Station(hermes) as relay:
        await load(page, relay.port, library, token("s"))
        for what, error in (
            (f"{{ task: '{task.id}' }}", "UnknownTask: there is no such"),
            ("{ session: 'theirs' }", "UnknownTask: there is no such"),
            ("{ session: 's', after: -1 }", "InvalidInput: "),
        ):
            with pytest.raises(ScriptFailed, match=error):
                await page.run(f"return take({what})")
        with pytest.raises(ScriptFailed, match="Unauthorized: "):
            await page.run(
                "client = new hermes.RelayClient(location.origin, 'x'); return take({ session: 's' })"
            )
        nobody = (
            f"client = new hermes.RelayClient('http://127.0.0.1:{free_port()}', 'x', {{ timeout: 300 }});"
        )
        with pytest.raises(ScriptFailed, match="RelayUnavailable: no relay answers"):
            await page.run(f"{nobody} return take({{ session: 's' }})")
        broken = "client = new hermes.RelayClient(location.origin, () => fetch('x:'), { timeout: 300 });"
        with pytest.raises(ScriptFailed, match=r"RelayUnavailable: .*there is no token"):
            await page.run(f"{broken} return take({{ session: 's' }})")


@only_memory
async def test_commands_share_a_connection_that_is_made_anew(
    hermes: Hermes, page: Page, library: str
) -> None:
    ask = "client.command('unsubscribe', { session: 's' })"
    async with Station(hermes) as relay:
        await load(page, relay.port, library, token("s"))
        answers = await page.run(f"return await Promise.all([{ask}, {ask}, {ask}])")
        assert [answer["ok"] for answer in answers] == [True] * 3
        assert await page.run("return connections") == 1
        await relay.stop()
        with pytest.raises(ScriptFailed, match=r"RelayUnavailable: .* did not answer"):
            await page.run(f"return await {ask}")
        await relay.start()
        assert (await page.run(f"return await {ask}"))["ok"]
        with pytest.raises(ScriptFailed, match="InvalidInput: "):
            await page.run("return await client.command('unsubscribe', { session: 7 })")
        assert (await page.run(f"return await {ask}"))["ok"]
        with pytest.raises(ScriptFailed, match=r"RelayUnavailable: .*closed"):
            await page.run(f"client.close(); return await {ask}")


@only_memory
async def test_what_commands_do(hermes: Hermes, page: Page, library: str) -> None:
    task = await new_task(hermes, "s")
    async with Station(hermes) as relay:
        await load(page, relay.port, library, token("s"))
        said = await page.run("return client.command('message', { session: 's', text: 'from the page' })")
        inbox = await page.run("return client.command('inbox', { session: 's' })")
        assert [one["data"]["text"] for one in inbox["deliveries"]] == ["from the page"]
        acked = await page.run(f"return client.command('ack', {{ session: 's', seqs: [{said['seq']}] }})")
        assert acked["acked"] == 1
        answer = f"client.command('answer', {{ task: '{task.id}', value: 1 }})"
        with pytest.raises(ScriptFailed, match="Refused: "):
            await page.run(f"await {answer}")
        assert await page.run(f"return {answer}.catch((error) => error.code)") == "not_taken"
        with pytest.raises(ScriptFailed, match="UnknownTask: "):
            await page.run("await client.command('message', { session: 'theirs', text: 'x' })")


@only_memory
async def test_it_ends_when_it_is_told_to(hermes: Hermes, page: Page, library: str) -> None:
    await say(hermes, "s", 3)
    async with Station(hermes) as relay:
        await load(page, relay.port, library, token("s"))
        began = time.monotonic()
        aborted = await page.run(
            "const c = new AbortController();"
            "return take({ session: 's', signal: c.signal }, 0, (event) => event.seq === 3 && c.abort())"
        )
        closed = await page.run(
            "return take({ session: 's' }, 0, (event) => event.seq === 3 && client.close())"
        )
        again = await page.run("return take({ session: 's' })")
        assert aborted == closed == await log_of(hermes, "s")
        assert again == []
        assert time.monotonic() - began < 10


@only_memory
async def test_the_page_that_the_document_shows(hermes: Hermes, page: Page, library: str) -> None:
    shown = next(block.text for block in blocks(ROOT / "docs/browser.md") if block.language == "html")
    await say(hermes, "chat-7", 2)
    async with Station(hermes) as relay:
        await page.serve(
            {
                "/chat": ("text/html", shown),
                "/token": ("text/plain", token("chat-7")),
                "/vendor/socket.io.esm.min.js": ("text/javascript", library),
            }
        )
        await page.visit(f"http://127.0.0.1:{relay.port}/chat")
        rows = "return [...document.querySelectorAll('li')].map((li) => li.innerText)"
        await page.until(rows, ["1 session.message", "2 session.message"])
        assert await page.run("return localStorage.getItem('chat-7')") == "2"

"""Drives the Python SDK: each case prints one line of JSON with what was seen. tests/sdks judges.

    client.py MODE URL CUT_URL BLANK_URL TOKEN

MODE: `modern`, `session` or `sse`. CUT_URL is the same server behind a proxy that cuts connections, BLANK_URL behind
one that takes the answer out of a stream.
Works with the 1.x and the 2.x line of the package `mcp`.
"""

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager

import mcp
from mcp.client.sse import sse_client

V2 = hasattr(mcp, "Client")
if V2:
    import httpx2 as httpx
    from mcp.client.streamable_http import streamable_http_client
    from mcp_types import ElicitResult
else:
    import httpx
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client
    from mcp.types import ElicitResult

MODE, URL, CUT_URL, BLANK_URL, TOKEN = sys.argv[1:6]
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
ASKED = []


async def answer(context, params):
    """The user, who wishes for warm weather."""
    ASKED.append(params.message)
    return ElicitResult(action="accept", content={"wish": "warm"})


@asynccontextmanager
async def connect(url):
    """A connected client."""
    async with AsyncExitStack() as stack:
        if MODE == "sse":
            transport = sse_client(url, headers=HEADERS)
        else:
            http = httpx.AsyncClient(headers=HEADERS, timeout=httpx.Timeout(10, read=60))
            transport = streamable_http_client(url, http_client=await stack.enter_async_context(http))
        if V2:
            # Over HTTP+SSE as it comes: it first asks whether the server speaks 2026-07-28.
            mode = {"modern": {"mode": "2026-07-28"}, "session": {"mode": "legacy"}, "sse": {}}[MODE]
            client = mcp.Client(transport, elicitation_callback=answer, **mode)
            yield await stack.enter_async_context(client)
        else:
            streams = await stack.enter_async_context(transport)
            client = ClientSession(streams[0], streams[1], elicitation_callback=answer)
            session = await stack.enter_async_context(client)
            session.initialized = await session.initialize()
            yield session


def revision(client):
    """The negotiated revision of the protocol."""
    return client.protocol_version if V2 else client.initialized.protocolVersion


def structured(result):
    """A result's structured content."""
    return result.structured_content if V2 else result.structuredContent


async def slow_echo(client, total_ms, events, steps):
    """Calls the tool; `steps` takes the progress as it comes."""

    async def progress(step, total, message):
        steps.append(step)

    arguments = {"text": "x", "total_ms": total_ms, "events": events}
    result = await client.call_tool("slow_echo", arguments, progress_callback=progress)
    return structured(result)["text"]


async def case_connect(client):
    return {"revision": revision(client)}


async def case_list(client):
    return {"tools": [tool.name for tool in (await client.list_tools()).tools]}


async def case_progress(client):
    steps = []
    return {"text": await slow_echo(client, 1_000, 10, steps), "steps": steps}


async def case_elicit(client):
    ASKED.clear()
    result = await client.call_tool("plan_outing", {"month": 7})
    return {"asked": len(ASKED), "plan": structured(result)}


async def case_cancel(client):
    """Cancels a call. The 1.x line has no call for it: its user sends the notification."""
    steps = []
    call = asyncio.create_task(slow_echo(client, 20_000, 400, steps))
    while len(steps) < 3:
        await asyncio.sleep(0.01)
    at = time.time()
    if not V2:
        from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

        params = CancelledNotificationParams(requestId=client._request_id - 1)
        message = CancelledNotification(method="notifications/cancelled", params=params)
        await client.send_notification(ClientNotification(message))
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        pass
    return {"at_ms": int(at * 1000), "then": await echo(client)}


async def case_leave(client):
    """Leaves a call without a word: the caller's own task is cancelled."""
    steps = []
    call = asyncio.create_task(slow_echo(client, 1_500, 15, steps))
    while len(steps) < 3:
        await asyncio.sleep(0.01)
    at = time.time()
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        pass
    await asyncio.sleep(2)
    return {"at_ms": int(at * 1000), "then": await echo(client)}


async def echo(client):
    result = await client.call_tool("echo", {"text": "still here"})
    return result.content[0].text


async def case_cut(client):
    """A call whose connection is cut on the way. The SDK resumes by itself, or says that it can't."""
    steps = []
    try:
        text = await asyncio.wait_for(slow_echo(client, 3_000, 30, steps), 20)
    except Exception as error:
        text = f"error: {error}"
    return {"text": text, "steps": steps, "then": await echo(client)}


async def case_ended(client):
    """A call whose last event came without the answer that was in it: nothing is left to resume."""
    steps = []
    try:
        text = await asyncio.wait_for(slow_echo(client, 300, 3, steps), 8)
    except Exception as error:
        text = f"error: {error}"
    return {"text": text, "steps": steps, "then": await echo(client)}


async def case_refused(client):
    """A call that is refused, as it is too large, beside one that runs."""
    running = asyncio.create_task(slow_echo(client, 1_500, 3, []))
    await asyncio.sleep(0.3)
    try:
        await asyncio.wait_for(client.call_tool("echo", {"text": "x" * 5 * 1024 * 1024}), 20)
        refused = "it was not"
    except Exception as error:
        refused = f"error: {causes(error)}"
    return {"refused": refused, "text": await running, "then": await echo(client)}


def causes(error):
    """An error, with those inside a group."""
    inner = getattr(error, "exceptions", None)
    return "; ".join(causes(e) for e in inner) if inner else f"{type(error).__name__}: {error}"


async def run(name, case, url):
    begun = time.time()
    try:
        async with asyncio.timeout(60):
            async with connect(url) as client:
                seen = await case(client)
    except BaseException as error:
        seen = {"error": causes(error)}
    print(json.dumps({"case": name, "took_ms": int((time.time() - begun) * 1000), **seen}), flush=True)


async def main():
    for case in (case_connect, case_list, case_progress, case_elicit, case_cancel, case_leave, case_refused):
        await run(case.__name__.removeprefix("case_"), case, URL)
    if MODE != "sse":
        await run("cut", case_cut, CUT_URL)
    if MODE == "session":
        await run("ended", case_ended, BLANK_URL)


asyncio.run(main())

"""Drives the SDK itself (package `mcp`, 1.9 to 2.x)."""

import mcp
from common import AUTH, HEADERS, STEPS, TRANSPORT, URL, run
from mcp.client import streamable_http
from mcp.client.sse import sse_client

V2 = hasattr(mcp, "Client")


def auth():
    if AUTH == "token":
        return None
    from oauth import provider

    return provider()


async def work(client, seen):
    """The same for both lines."""
    seen["tools"] = len((await client.list_tools()).tools)
    steps = seen["steps"] = []

    async def progress(step, total, message=None):
        steps.append(step)

    result = await client.call_tool("slow_echo", STEPS, progress_callback=progress)
    seen["text"] = result.content[0].text
    try:
        result = await client.call_tool("no_such_tool", {})
        seen["refused"] = f"result: {result.content[0].text}"
    except Exception as error:
        seen["refused"] = str(error)
    seen["then"] = (await client.call_tool("echo", {"text": "still here"})).content[0].text


async def drive_2(seen):
    """The 2.x line in its default mode, which probes."""
    import httpx2

    if TRANSPORT == "sse":
        async with mcp.Client(sse_client(URL, headers=HEADERS, auth=auth())) as client:
            seen["revision"] = client.protocol_version
            await work(client, seen)
        return
    async with httpx2.AsyncClient(headers=HEADERS, timeout=30, auth=auth(), follow_redirects=True) as http:
        async with mcp.Client(streamable_http.streamable_http_client(URL, http_client=http)) as client:
            seen["revision"] = client.protocol_version
            await work(client, seen)


async def drive_1(seen):
    """The 1.x line."""
    connect = sse_client if TRANSPORT == "sse" else streamable_http.streamablehttp_client
    async with connect(URL, headers=HEADERS, auth=auth()) as streams:
        async with mcp.ClientSession(streams[0], streams[1]) as client:
            seen["revision"] = (await client.initialize()).protocolVersion
            await work(client, seen)


run(drive_2 if V2 else drive_1)

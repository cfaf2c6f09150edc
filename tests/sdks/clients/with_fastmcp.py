"""Drives FastMCP's client, 2.x to 4.x. For OAuth it opens a browser itself."""

from common import AUTH, HEADERS, STEPS, TRANSPORT, URL, run
from fastmcp import Client
from fastmcp.client.transports import SSETransport, StreamableHttpTransport


async def drive(seen):
    steps = seen["steps"] = []

    async def progress(step, total, message):
        steps.append(step)

    transport = SSETransport if TRANSPORT == "sse" else StreamableHttpTransport
    auth = "oauth" if AUTH == "oauth" else None
    async with Client(transport(URL, headers=HEADERS, auth=auth)) as client:
        begun = getattr(client, "initialize_result", None)
        seen["revision"] = getattr(client, "protocol_version", None) or getattr(begun, "protocolVersion", None)
        seen["tools"] = len(await client.list_tools())
        result = await client.call_tool("slow_echo", STEPS, progress_handler=progress)
        seen["text"] = result.content[0].text
        try:
            seen["refused"] = f"result: {await client.call_tool('no_such_tool', {})}"
        except Exception as error:
            seen["refused"] = str(error)
        seen["then"] = (await client.call_tool("echo", {"text": "still here"})).content[0].text


run(drive)

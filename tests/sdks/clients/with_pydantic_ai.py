"""Drives the MCP toolset of pydantic-ai."""

from common import AUTH, HEADERS, STEPS, TRANSPORT, URL, run
from pydantic_ai.mcp import MCPToolset


async def drive(seen):
    steps = seen["steps"] = []

    async def progress(step, total, message):
        steps.append(step)

    # It tells the transports apart by the address.
    assert URL.endswith("/sse") == (TRANSPORT == "sse")
    options = {"auth": "oauth"} if AUTH == "oauth" else {"headers": HEADERS}
    async with MCPToolset(URL, progress_handler=progress, **options) as tools:
        seen["tools"] = len(await tools.list_tools())
        seen["text"] = await tools.direct_call_tool("slow_echo", STEPS)
        try:
            seen["refused"] = f"result: {await tools.direct_call_tool('no_such_tool', {})}"
        except Exception as error:
            seen["refused"] = str(error)
        seen["then"] = await tools.direct_call_tool("echo", {"text": "still here"})


run(drive)

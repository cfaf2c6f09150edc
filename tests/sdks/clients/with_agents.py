"""Drives the MCP clients of openai-agents. They take no progress from their caller."""

from agents.mcp import MCPServerSse, MCPServerStreamableHttp
from common import AUTH, HEADERS, STEPS, TRANSPORT, URL, run


async def drive(seen):
    params = {"url": URL, "headers": HEADERS}
    if AUTH == "oauth":
        from oauth import provider

        params["auth"] = provider()
    kind = MCPServerSse if TRANSPORT == "sse" else MCPServerStreamableHttp
    async with kind(params=params, client_session_timeout_seconds=30) as server:
        seen["tools"] = len(await server.list_tools())
        seen["text"] = (await server.call_tool("slow_echo", STEPS)).content[0].text
        try:
            seen["refused"] = f"result: {await server.call_tool('no_such_tool', {})}"
        except Exception as error:
            seen["refused"] = str(error)
        seen["then"] = (await server.call_tool("echo", {"text": "still here"})).content[0].text


run(drive)

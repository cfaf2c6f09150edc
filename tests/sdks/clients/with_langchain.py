"""Drives langchain-mcp-adapters: its tools, within one session and without one."""

from common import AUTH, HEADERS, STEPS, TRANSPORT, URL, run
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools


async def drive(seen):
    steps = seen["steps"] = []

    async def progress(step, total, message, context):
        steps.append(step)

    transport = "sse" if TRANSPORT == "sse" else "streamable_http"
    connection = {"transport": transport, "url": URL, "headers": HEADERS}
    if AUTH == "oauth":
        from oauth import provider

        connection["auth"] = provider()
    callbacks = Callbacks(on_progress=progress)
    client = MultiServerMCPClient({"asgard": connection}, callbacks=callbacks)
    async with client.session("asgard") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session, callbacks=callbacks, server_name="asgard")}
        seen["tools"] = len(tools)
        seen["text"] = await tools["slow_echo"].ainvoke(STEPS)
        try:
            seen["refused"] = f"result: {await session.call_tool('no_such_tool', {})}"
        except Exception as error:
            seen["refused"] = str(error)
        seen["then"] = await tools["echo"].ainvoke({"text": "still here"})
    # Its other way: a session for each call.
    tools = {tool.name: tool for tool in await client.get_tools()}
    seen["alone"] = await tools["echo"].ainvoke({"text": "still here"})


run(drive)

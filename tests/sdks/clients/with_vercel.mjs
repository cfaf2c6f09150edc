// Drives Vercel's MCP client: PACKAGE is `@ai-sdk/mcp`, or `ai` (version 4, its `experimental_createMCPClient`).
// Neither gives its caller progress.
//
//     with_vercel.mjs TRANSPORT URL AUTH PACKAGE

import { AUTH, headers, Provider, run, STEPS, TRANSPORT, URL_ } from './common.mjs';

const { experimental_createMCPClient, auth } = await import(process.argv[5]);
const sdk = { create: experimental_createMCPClient, auth };

await run(async seen => {
    const transport = { type: TRANSPORT, url: URL_, headers };
    if (AUTH !== 'token') {
        const authProvider = (transport.authProvider = new Provider());
        await sdk.auth(authProvider, { serverUrl: URL_ });
        const callback = authProvider.callback;
        await sdk.auth(authProvider, {
            serverUrl: URL_,
            authorizationCode: callback.get('code'),
            callbackState: callback.get('state') ?? undefined,
            callbackIssuer: callback.get('iss') ?? undefined,
        });
    }
    const client = await sdk.create({ transport });
    seen.revision = client.initializeResult?.protocolVersion;
    const tools = await client.tools();
    seen.tools = Object.keys(tools).length;
    const call = (name, args) => tools[name].execute(args, { toolCallId: name, messages: [] });
    seen.text = (await call('slow_echo', STEPS)).content[0].text;
    // A call of a tool that the list does not have: only its newer line has a way.
    if (client.callTool) {
        const refused = client.callTool({ name: 'no_such_tool', arguments: {} });
        seen.refused = await refused.then(result => `result: ${result.content[0].text}`, String);
    }
    seen.then = (await call('echo', { text: 'still here' })).content[0].text;
    await client.close();
});

// Drives the TypeScript SDK: PACKAGE is `sdk` (`@modelcontextprotocol/sdk`, 1.x), or `client` or `client-auto`
// (`@modelcontextprotocol/client`, 2.x). The latter begins a session unless its `versionNegotiation` says `auto`.
//
//     with_sdk.mjs TRANSPORT URL AUTH PACKAGE

import { readFileSync } from 'node:fs';

import { AUTH, headers, Provider, run, STEPS, TRANSPORT, URL_ } from './common.mjs';

const PACKAGE = process.argv[5];

async function load() {
    if (PACKAGE !== 'sdk') return { V2: true, ...(await import('@modelcontextprotocol/client')) };
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { SSEClientTransport } = await import('@modelcontextprotocol/sdk/client/sse.js');
    const { version } = JSON.parse(readFileSync('node_modules/@modelcontextprotocol/sdk/package.json'));
    return { Client, StreamableHTTPClientTransport, SSEClientTransport, minor: Number(version.split('.')[1]) };
}

const sdk = await load();
// The first lines send no headers of their caller's when they open a stream of HTTP+SSE: their README names this way.
const withHeaders = (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } });
const eventSourceInit = sdk.minor < 11 && AUTH === 'token' ? { fetch: withHeaders } : undefined;
const Transport = TRANSPORT === 'sse' ? sdk.SSEClientTransport : sdk.StreamableHTTPClientTransport;

/// A connected client: one that must log in connects, is sent to do that, and connects again.
async function connect(authProvider) {
    const client = () => {
        const options = PACKAGE === 'client-auto' ? { versionNegotiation: { mode: 'auto' } } : {};
        return new sdk.Client({ name: 'asgard-clients', version: '1' }, options);
    };
    const transport = () => new Transport(new URL(URL_), { requestInit: { headers }, eventSourceInit, authProvider });
    const first = transport();
    try {
        const connected = client();
        await connected.connect(first);
        return [connected, first];
    } catch (error) {
        if (!authProvider?.callback) throw error;
    }
    await first.finishAuth(sdk.V2 ? authProvider.callback : authProvider.callback.get('code'));
    const [second, connected] = [transport(), client()];
    await connected.connect(second);
    return [connected, second];
}

await run(async seen => {
    const [client, transport] = await connect(AUTH === 'token' ? undefined : new Provider());
    seen.revision = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion ?? transport._protocolVersion;
    seen.tools = (await client.listTools()).tools.length;
    const steps = (seen.steps = []);
    const call = (name, args, options) =>
        sdk.V2
            ? client.callTool({ name, arguments: args }, options)
            : client.callTool({ name, arguments: args }, undefined, options);
    const result = await call('slow_echo', STEPS, { onprogress: ({ progress }) => steps.push(progress) });
    seen.text = result.content[0].text;
    seen.refused = await call('no_such_tool', {}).then(result => `result: ${result.content[0].text}`, String);
    seen.then = (await call('echo', { text: 'still here' })).content[0].text;
    await client.close();
});

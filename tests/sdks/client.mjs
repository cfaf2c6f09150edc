// Drives a TypeScript SDK: each case prints one line of JSON with what was seen. tests/sdks judges.
//
//     client.mjs PACKAGE MODE URL CUT_URL BLANK_URL TOKEN
//
// PACKAGE: `sdk` (@modelcontextprotocol/sdk, 1.x) or `client` (@modelcontextprotocol/client, 2.x).
// MODE: `modern`, `session` or `sse`. CUT_URL is the same server behind a proxy that cuts connections, BLANK_URL behind
// one that takes the answer out of a stream.

const [, , PACKAGE, MODE, URL_, CUT_URL, BLANK_URL, TOKEN] = process.argv;
const requestInit = { headers: { Authorization: `Bearer ${TOKEN}` } };
let asked = 0;

async function load() {
    if (PACKAGE === 'client') return import('@modelcontextprotocol/client');
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { SSEClientTransport } = await import('@modelcontextprotocol/sdk/client/sse.js');
    const { ElicitRequestSchema } = await import('@modelcontextprotocol/sdk/types.js');
    return { Client, StreamableHTTPClientTransport, SSEClientTransport, ElicitRequestSchema };
}

const sdk = await load();

/// A connected client. Its user wishes for warm weather.
async function connect(url) {
    const options = { capabilities: { elicitation: {} } };
    if (MODE === 'modern') options.versionNegotiation = { mode: { pin: '2026-07-28' } };
    const client = new sdk.Client({ name: 'asgard-sdks', version: '1' }, options);
    client.setRequestHandler(sdk.ElicitRequestSchema ?? 'elicitation/create', () => {
        asked += 1;
        return { action: 'accept', content: { wish: 'warm' } };
    });
    client.errors = [];
    client.onerror = error => client.errors.push(String(error));
    const Transport = MODE === 'sse' ? sdk.SSEClientTransport : sdk.StreamableHTTPClientTransport;
    client.wire = new Transport(new URL(url), { requestInit });
    await client.connect(client.wire);
    return client;
}

/// Calls a tool: the two lines of the SDK take different arguments.
function call(client, name, args, options = {}) {
    const params = { name, arguments: args };
    return PACKAGE === 'client' ? client.callTool(params, options) : client.callTool(params, undefined, options);
}

/// Calls the tool; `steps` takes the progress as it comes.
async function slowEcho(client, total_ms, events, steps, options = {}) {
    const onprogress = ({ progress }) => steps.push(progress);
    const args = { text: 'x', total_ms, events };
    const result = await call(client, 'slow_echo', args, { onprogress, timeout: 30_000, ...options });
    return result.structuredContent.text;
}

async function echo(client) {
    return (await call(client, 'echo', { text: 'still here' })).content[0].text;
}

const sleep = ms => new Promise(done => setTimeout(done, ms));

const cases = {
    async connect(client) {
        const revision = client.getNegotiatedProtocolVersion?.() ?? client.wire.protocolVersion ?? client.wire._protocolVersion;
        return { revision };
    },

    async list(client) {
        return { tools: (await client.listTools()).tools.map(tool => tool.name) };
    },

    async progress(client) {
        const steps = [];
        return { text: await slowEcho(client, 1_000, 10, steps), steps };
    },

    async elicit(client) {
        asked = 0;
        const result = await call(client, 'plan_outing', { month: 7 });
        return { asked, plan: result.structuredContent };
    },

    async cancel(client) {
        const steps = [];
        const abort = new AbortController();
        const running = slowEcho(client, 20_000, 400, steps, { signal: abort.signal }).catch(String);
        while (steps.length < 3) await sleep(10);
        const at_ms = Date.now();
        abort.abort('enough');
        await running;
        return { at_ms, then: await echo(client) };
    },

    // A call that is refused, as it is too large, beside one that runs.
    async refused(client) {
        const running = slowEcho(client, 1_500, 3, []);
        await sleep(300);
        const large = call(client, 'echo', { text: 'x'.repeat(5 * 1024 * 1024) }, { timeout: 20_000 });
        const refused = await large.then(() => 'it was not', error => `error: ${error}`);
        return { refused, text: await running, then: await echo(client) };
    },

    // A call whose connection is cut on the way. The SDK resumes by itself, or says that it can't.
    async cut(client) {
        const steps = [];
        const text = await slowEcho(client, 3_000, 30, steps, { timeout: 10_000 }).catch(error => `error: ${error}`);
        return { text, steps, then: await echo(client) };
    },

    // A call whose last event came without the answer that was in it: nothing is left to resume.
    async ended(client) {
        const steps = [];
        const text = await slowEcho(client, 300, 3, steps, { timeout: 8_000 }).catch(error => `error: ${error}`);
        return { text, steps, then: await echo(client) };
    },
};
const urls = { cut: CUT_URL, ended: BLANK_URL };

for (const [name, run] of Object.entries(cases)) {
    if (name === 'cut' && MODE === 'sse') continue;
    if (name === 'ended' && MODE !== 'session') continue;
    const begun = Date.now();
    let seen;
    let client;
    try {
        client = await connect(urls[name] ?? URL_);
        const late = sleep(60_000).then(() => { throw new Error('not done after 60 s'); });
        seen = await Promise.race([run(client), late]);
    } catch (error) {
        seen = { error: String(error), errors: client?.errors };
    }
    await client?.close().catch(() => {});
    console.log(JSON.stringify({ case: name, took_ms: Date.now() - begun, ...seen }));
}
process.exit(0);

// Drives mcp-remote: a program that stands between a client on standard input and output and a remote server. It logs in
// by a browser, and keeps its tokens in a folder.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

import { AUTH, headers, run, STEPS, TRANSPORT, URL_ } from './common.mjs';

const program = path.join(path.dirname(createRequire(import.meta.url).resolve('mcp-remote/package.json')), 'dist/proxy.js');
const folder = mkdtempSync(path.join(tmpdir(), 'mcp-remote-'));
const options = ['--transport', `${TRANSPORT}-only`, '--allow-http'];
for (const [name, value] of Object.entries(headers)) options.push('--header', `${name}:${value}`);
if (AUTH === 'client') options.push('--static-oauth-client-info', JSON.stringify({ client_id: process.env.CLIENT_ID }));

await run(async seen => {
    const env = { ...process.env, MCP_REMOTE_CONFIG_DIR: folder };
    const remote = spawn(process.execPath, [program, URL_, ...options], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    const waiting = new Map();
    const steps = (seen.steps = []);
    createInterface({ input: remote.stdout }).on('line', line => {
        const message = JSON.parse(line);
        if (message.method === 'notifications/progress') steps.push(message.params.progress);
        waiting.get(message.id)?.(message);
    });
    const gone = new Promise((_, fail) => remote.on('exit', code => fail(new Error(`mcp-remote ended: ${code}`))));
    let last = 0;
    const ask = (method, params) => {
        const id = ++last;
        const answer = new Promise(done => waiting.set(id, done));
        remote.stdin.write(JSON.stringify({ jsonrpc: '2.0', id, method, params }) + '\n');
        return Promise.race([answer, gone]);
    };
    try {
        const hello = await ask('initialize', {
            protocolVersion: '2025-11-25',
            capabilities: {},
            clientInfo: { name: 'asgard-clients', version: '1' },
        });
        seen.revision = hello.result.protocolVersion;
        remote.stdin.write(JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' }) + '\n');
        seen.tools = (await ask('tools/list', {})).result.tools.length;
        const call = (name, args) => ask('tools/call', { name, arguments: args, _meta: { progressToken: name } });
        seen.text = (await call('slow_echo', STEPS)).result.content[0].text;
        const refused = await call('no_such_tool', {});
        seen.refused = refused.error?.message ?? `result: ${JSON.stringify(refused.result)}`;
        seen.then = (await call('echo', { text: 'still here' })).result.content[0].text;
    } finally {
        remote.kill();
        rmSync(folder, { recursive: true, force: true });
    }
});

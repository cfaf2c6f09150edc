// What all of Node.js's clients do here, and how they say what they saw.
//
//     with_….mjs TRANSPORT URL AUTH
//
// TRANSPORT: `http` (Streamable HTTP) or `sse` (HTTP+SSE). AUTH: `token` (from TOKEN), `oauth`: the client finds the
// authorization server, registers itself, and sends its user to log in; or `client`: the same with CLIENT_ID, which
// somebody has registered.
// One line of JSON on standard output says what was seen; tests/sdks/tests/clients.rs judges.
// LOGIN is the program that plays the user's browser (login.py).

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

export const [, , TRANSPORT, URL_, AUTH] = process.argv;
export const headers = AUTH === 'token' ? { Authorization: `Bearer ${process.env.TOKEN}` } : {};
export const REDIRECT = 'http://localhost:33418/callback';
export const STEPS = { text: 'x', total_ms: 600, events: 6 };

/// The user's part: gives the parameters of the callback.
async function logIn(address) {
    const { stdout } = await promisify(execFile)(process.env.LOGIN, [String(address), REDIRECT]);
    return new URL(stdout.trim()).searchParams;
}

/// The OAuth provider that each of these clients takes, as its documentation has it: no scope named, a public client.
/// `callback` has the parameters once the user has logged in.
export class Provider {
    constructor() {
        if (AUTH === 'client') this.client = { client_id: process.env.CLIENT_ID };
    }
    get redirectUrl() {
        return REDIRECT;
    }
    get clientMetadata() {
        return {
            client_name: 'asgard-clients',
            redirect_uris: [REDIRECT],
            grant_types: ['authorization_code', 'refresh_token'],
            response_types: ['code'],
            token_endpoint_auth_method: 'none',
        };
    }
    clientInformation() {
        return this.client;
    }
    saveClientInformation(client) {
        this.client = client;
    }
    tokens() {
        return this.saved;
    }
    saveTokens(tokens) {
        this.saved = tokens;
    }
    saveCodeVerifier(verifier) {
        this.verifier = verifier;
    }
    codeVerifier() {
        return this.verifier;
    }
    async redirectToAuthorization(address) {
        this.callback = await logIn(address);
    }
}

/// Runs a client: `drive` gets an object and fills it.
export async function run(drive) {
    const seen = {};
    const late = new Promise((_, fail) => setTimeout(() => fail(new Error('not done after 40 s')), 40_000));
    try {
        await Promise.race([drive(seen), late]);
    } catch (error) {
        seen.error = [error, error?.cause].filter(Boolean).map(String).join('; ');
    }
    console.log(JSON.stringify(seen));
    process.exit(0);
}

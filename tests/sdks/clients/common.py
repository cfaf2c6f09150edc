"""What all of Python's clients do here, and how they say what they saw.

    with_….py TRANSPORT URL AUTH

TRANSPORT: `http` (Streamable HTTP) or `sse` (HTTP+SSE). AUTH: `token` (from TOKEN), `oauth`: the client finds the
authorization server, registers itself, and sends its user to log in; or `client`: the same with CLIENT_ID, which
somebody has registered.
One line of JSON on standard output says what was seen; tests/sdks/tests/clients.rs judges.
"""

import asyncio
import json
import os
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

TRANSPORT, URL, AUTH = sys.argv[1:4]
HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}"} if AUTH == "token" else {}
REDIRECT = "http://localhost:33418/callback"
STEPS = {"text": "x", "total_ms": 600, "events": 6}


async def log_in(address):
    """The user's part, for clients that leave it to their caller: gives the parameters of the callback."""
    login = [sys.executable, os.path.join(os.path.dirname(__file__), "login.py"), address, REDIRECT]
    done = await asyncio.to_thread(subprocess.run, login, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"login: {done.stderr.strip()}")
    return {name: values[0] for name, values in parse_qs(urlsplit(done.stdout.strip()).query).items()}


def causes(error):
    """An error, with those inside a group."""
    inner = getattr(error, "exceptions", None)
    return "; ".join(causes(e) for e in inner) if inner else f"{type(error).__name__}: {error}"


def run(drive):
    """Runs a client: `drive` gets a dictionary and fills it."""
    seen = {}

    async def limited():
        await asyncio.wait_for(drive(seen), 40)

    try:
        asyncio.run(limited())
    except BaseException as error:
        seen["error"] = causes(error)
    print(json.dumps(seen, default=str), flush=True)
    # Whatever a library left running does not keep us.
    os._exit(0)

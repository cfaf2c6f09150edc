"""The OAuth client of the SDK (package `mcp`, both lines) with a person who logs in."""

import os

from common import AUTH, REDIRECT, URL, log_in
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata


def known_client():
    """The client that somebody has registered, if it is to be that one."""
    if AUTH != "client":
        return None
    return OAuthClientInformationFull(
        client_id=os.environ["CLIENT_ID"], redirect_uris=[REDIRECT], token_endpoint_auth_method="none"
    )


class Storage:
    """Tokens and the registered client, as long as the process lives."""

    def __init__(self):
        self.tokens = None
        self.client = known_client()

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


def provider(url=URL):
    """The provider as its documentation has it: no scope named, a public client."""
    callback = {}

    async def redirect_handler(address):
        callback.update(await log_in(address))

    async def callback_handler():
        try:
            from mcp.shared.auth import AuthorizationCodeResult
        except ImportError:
            return callback["code"], callback.get("state")
        names = ("code", "state", "iss")
        return AuthorizationCodeResult(**{name: callback[name] for name in names if name in callback})

    metadata = OAuthClientMetadata(
        client_name="asgard-clients",
        redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
    )
    return OAuthClientProvider(url, metadata, Storage(), redirect_handler, callback_handler)

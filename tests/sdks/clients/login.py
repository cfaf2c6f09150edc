"""A person with a browser who logs in at Keycloak: fills in each page's form as it comes, and says yes to all.

    login.py ADDRESS [REDIRECT]

Follows ADDRESS to its end, which is where the client waits for the code: a browser's part, for clients that open one
(`BROWSER=login.py`). With REDIRECT it stops at the first address that begins with it, and prints that one.
USER_NAME (default: thor) is the user, and the password.
Only the standard library: it runs beside every client. (The real browser is in tests/e2e/tests/browser.rs.)
"""

import html
import http.client
import os
import re
import sys
import time
from urllib.parse import urlencode, urljoin, urlsplit

STEPS = 20
USER = os.environ.get("USER_NAME", "thor")
# Keycloak's cookies are for TLS alone; browsers send those to loopback too, Python's own jar doesn't.
COOKIES = {}


def patient(address, fields):
    """One request; a client may not listen yet when its browser is already there."""
    for _ in range(100):
        try:
            return load(address, fields)
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit(f"nobody listens at {address}")


def load(address, fields):
    """One request. Gives the status, where it leads, and the page."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=30)
    headers = {"Accept": "text/html"}
    if parts.path.startswith("/heimdall/"):
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in COOKIES.items())
    body = None
    if fields is not None:
        body = urlencode(fields)
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request("POST" if body else "GET", target or "/", body, headers)
    answer = connection.getresponse()
    for cookie in answer.headers.get_all("Set-Cookie") or []:
        name, value = cookie.split(";")[0].split("=", 1)
        COOKIES[name] = value
    return answer.status, answer.getheader("Location"), answer.read().decode("utf-8", "replace")


def fill(page):
    """What a person enters, and where the form goes."""
    forms = re.findall(r'<form[^>]*\baction="([^"]*)"', page)
    action = next((form for form in forms if "/consent" in form), forms[0] if forms else None)
    if action is None:
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
        sys.exit(f"no form: {words[:600]}")
    if 'name="accept"' in page:
        code = re.search(r'name="code" value="([^"]*)"', page)
        return html.unescape(action), {"code": html.unescape(code[1]) if code else "", "accept": "Yes"}
    if 'name="password"' in page:
        return html.unescape(action), {"username": USER, "password": USER}
    return html.unescape(action), {"username": USER}


def main():
    address, redirect = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else None)
    fields = None
    for _ in range(STEPS):
        if redirect and address.startswith(redirect):
            print(address)
            return
        status, location, page = patient(address, fields)
        fields = None
        if location:
            address = urljoin(address, location)
        elif "/heimdall/" not in urlsplit(address).path:
            # The client's own page: it has the code.
            if status >= 400:
                sys.exit(f"the client answered {status}: {page[:300]}")
            return
        elif status >= 400:
            words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
            sys.exit(f"{status}: {words[:600]}")
        else:
            action, fields = fill(page)
            address = urljoin(address, action)
    sys.exit("no end of pages")


main()

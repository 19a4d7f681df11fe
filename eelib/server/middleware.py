"""What every request passes before its route: plain ASGI, so that routes still see the client hang up."""

import base64
import binascii
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eelib.server.config import ServerConfig
from eelib.server.errors import ClientGone, error_response
from eelib.server.metrics import Metrics

OPEN = "/health"  # needs no token


class Counted:
    """Stamps a request's arrival, and counts it by route and status when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        arrived = time.monotonic()
        scope.setdefault("state", {})["arrived"] = arrived
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(time.monotonic() - arrived)


class Guarded:
    """Refuses foreign hosts (403), missing tokens (401) and large bodies (413); takes a path with or without its last slash."""

    def __init__(self, app: ASGIApp, config: ServerConfig):
        self.app, self.config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["path"] = scope["path"].rstrip("/") or "/"
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._host_allowed(host, scope):
            sentence = f"The host is {host[:80]!r}, by which this server is not called: --allow-host allows further names."
            return await self._refuse(403, sentence, scope, receive, send)
        if scope["path"] != OPEN and not self._token_right(headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="early exit", charset="UTF-8", Bearer'}
            sentence = "A token is needed: send it as Authorization: Bearer TOKEN."
            return await self._refuse(401, sentence, scope, receive, send, challenge)
        try:
            body = await self._body(headers.get("content-length", ""), receive)
        except ClientGone:
            return None
        if body is None:
            sentence = f"The body is too large: allowed are {self.config.max_body} bytes."
            return await self._refuse(413, sentence, scope, receive, send, {"Connection": "close"})
        if "origin" not in headers:
            # No browser's, which alone needs the type to ask before it sends: plain curl and litellm name another or none.
            MutableHeaders(scope=scope)["content-type"] = "application/json"
        await self.app(scope, _replayed(body, receive), send)

    async def _refuse(self, status, sentence, scope, receive, send, headers=None) -> None:
        await error_response(scope["path"], status, sentence, headers=headers)(scope, receive, send)

    def _host_allowed(self, host: str, scope: Scope) -> bool:
        """Whether the request addresses this server by a name it has, or by the very address it came to: a page of another
        site that has its own name lead here (DNS rebinding) does not."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and name in (*self.config.hosts, (scope.get("server") or [None])[0])

    def _token_right(self, authorization: str) -> bool:
        """Whether the token is there: as a bearer's, or as the password that a browser asks for."""
        if self.config.token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return secrets.compare_digest(given.strip().encode(), self.config.token.encode())

    async def _body(self, length: str, receive: Receive) -> bytes | None:
        """The whole body, or None as soon as it is known to be too large; ClientGone when its end does not come."""
        most = self.config.max_body
        if length.isdigit() and int(length) > most:
            return None
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                return None
        return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once more, then what really comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

"""How a connection is treated that HTTP's happy path leaves open: slow, half-closed, or idle when the server goes down."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 10.0  # seconds in which a whole request must have come
PROBE = 0.1  # seconds between two questions whether a half-closed client still reads


class Connection(H11Protocol):
    """uvicorn's, which waits for a request's headers and body for ever and takes a half-closed client for one that is gone."""

    patience = PATIENCE
    _waits: asyncio.TimerHandle | None = None
    _begun = False  # whether bytes of a request have come whose headers have not all

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._under_way():
            self._begun = True
            if self._waits is None:
                self._await_request()
        super().data_received(data)
        if self._under_way() and not self.cycle.more_body:
            self._begun = False
            self._stop_waiting()

    def eof_received(self) -> bool:
        """Keep the connection of a client that has sent a whole request and may still read the answer.

        A client that is gone looks the same. It tells itself by refusing what is sent: an interim answer, which every client
        of HTTP/1.1 passes over, until the answer itself begins. Once it has begun, an end of the client's is one.
        """
        cycle = self.cycle
        if self._incomplete() or not self._under_way() or cycle.response_started:
            return False
        if cycle.scope["http_version"] != "1.1":  # has no interim answers
            return False
        cycle.keep_alive = False
        self._probe()
        return True

    def shutdown(self) -> None:
        if self._incomplete():
            self.transport.close()
        else:
            super().shutdown()

    def _under_way(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _incomplete(self) -> bool:
        """Whether a request has begun and its end has not come."""
        return self.cycle.more_body if self._under_way() else self._begun

    def _await_request(self) -> None:
        self._waits = self.loop.call_later(self.patience, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None

    def _probe(self) -> None:
        if self.transport.is_closing() or self.cycle.response_started:
            return
        self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")))
        self.loop.call_later(PROBE, self._probe)

"""Connections that are slow, half-closed, or stand open when the server goes down."""

import json
import socket
import time

import pytest
from servers import SOURCE, running

from eelib.server.connection import Connection

HEAD = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY = json.dumps({"inputs": SOURCE}).encode()
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def connected(server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20)
    connection.settimeout(20)
    return connection


def answered(connection: socket.socket) -> None:
    """Read one whole answer, which is JSON."""
    data = b""
    while not data.endswith(b"}"):
        data += connection.recv(65536)
    assert data.startswith(b"HTTP/1.1 200")


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"])
def test_a_request_whose_end_does_not_come_is_closed(sent, monkeypatch):
    monkeypatch.setattr(Connection, "patience", 0.3)
    with running() as server, connected(server) as connection:
        connection.sendall(sent)
        assert received(connection) == b""


def test_a_later_request_of_a_connection_has_its_time_too(monkeypatch):
    monkeypatch.setattr(Connection, "patience", 0.5)
    with running() as server, connected(server) as connection:
        for _ in range(2):
            connection.sendall(WHOLE)
            answered(connection)
            time.sleep(0.6)  # longer than a request may take to come: none has begun
        connection.sendall(HEAD)
        assert received(connection) == b""


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{", WHOLE])
def test_slow_connections_do_not_hold_up_the_end(sent):
    with running() as server, connected(server) as connection:
        connection.sendall(sent)
        if sent == WHOLE:
            answered(connection)
            connection.sendall(HEAD)
        time.sleep(0.1)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3, "less than the drain's timeout"


@pytest.mark.parametrize("stream", [False, True])
def test_a_half_closed_client_gets_its_answer(stream):
    body = json.dumps({"inputs": SOURCE, "stream": stream}).encode()
    with running() as server, connected(server) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
        assert answer.startswith((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200"))
        assert b"HTTP/1.1 200 OK" in answer and b"generated_text" in answer and b"layers_used" in answer
        assert server.metric("eelib_cancellations_total") == 0

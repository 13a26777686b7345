"""Reads a ComfyUI server's messages with the standard library alone: the receiving half of RFC 6455."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from typing import Any

TEXT, BINARY, CLOSE = 1, 2, 8
PREVIEW_IMAGE, PROGRESS_TEXT = 1, 3

Message = dict[str, Any]


class Messages:
    """`receive` returns the next message as `{"type": ..., "data": ...}`, or None if none arrived in time."""

    def __init__(self, host: str, port: int, client_id: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=30)
        self._buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        status, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in status:
            raise ConnectionError(f"no websocket at {host}:{port}: {status.decode(errors='replace')}")

    def __enter__(self) -> Messages:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def receive(self, timeout: float) -> Message | None:
        self._socket.settimeout(timeout)
        try:
            opcode, payload = self._frame()
        except TimeoutError:
            return None
        if opcode == CLOSE:
            raise ConnectionError("the server closed the websocket")
        return json.loads(payload) if opcode == TEXT else _binary_message(payload)

    def _frame(self) -> tuple[int, bytes]:
        """One unfragmented, unmasked frame. If time runs out, the part that has arrived stays in the buffer."""
        self._need(2)
        opcode, length = self._buffer[0] & 15, self._buffer[1] & 127
        start = {126: 4, 127: 10}.get(length, 2)
        self._need(start)
        if start > 2:
            (length,) = struct.unpack(">H" if start == 4 else ">Q", self._buffer[2:start])
        self._need(start + length)
        payload = self._buffer[start : start + length]
        self._buffer = self._buffer[start + length :]
        return opcode, payload

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            self._fill()

    def _fill(self) -> None:
        received = self._socket.recv(1 << 16)
        if not received:
            raise ConnectionError("the server closed the websocket")
        self._buffer += received


def _binary_message(payload: bytes) -> Message:
    """A preview is `kind, format` and the encoded image; progress text is `kind, length of the node's id, id, text`."""
    kind, number = struct.unpack(">II", payload[:8])
    content = payload[8:]
    if kind == PREVIEW_IMAGE:
        return {"type": "preview", "data": content}
    if kind == PROGRESS_TEXT:
        return {"type": "text", "data": {"node": content[:number].decode(), "text": content[number:].decode()}}
    return {"type": f"binary {kind}", "data": payload[4:]}

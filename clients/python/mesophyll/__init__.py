"""Calls a Mesophyll master's internal API: plain calls, and the stream of events.

    client = Client()                     # or AsyncClient(), whose answers are awaited
    client.dispatch("guild:123", "MESSAGE_CREATE", {"content": "hello"})

docs/clients.md shows the rest.
"""

from .client import AsyncClient, Client
from .endpoint import mint
from .errors import MesophyllError
from .stream import AsyncStream, Stream
from .values import Interval, Pairs, StringMap, Timestamp, TimeZone, Vector, decode, encode

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "Client",
    "Interval",
    "MesophyllError",
    "Pairs",
    "Stream",
    "StringMap",
    "TimeZone",
    "Timestamp",
    "Vector",
    "decode",
    "encode",
    "mint",
]

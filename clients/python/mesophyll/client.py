"""Plain calls: pooled connections, and repetition of what was not done."""

import asyncio
import functools
import http.client
import itertools
import json
import selectors
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from .endpoint import Endpoint, backoff
from .errors import MesophyllError
from .operations import Operations
from .stream import AsyncStream, Stream
from .values import decode


class Client(Operations):
    """Calls a master. Any number of threads may share one.

    The arguments are those of `Endpoint`, and: `connections`, how many there are at most;
    `timeout`, how long to wait for an answer, in seconds; `retry_for`, how long to repeat what
    was not done, because a queue was full, a worker or the master away (0: never).
    """

    def __init__(self, addresses=None, *, connections=32, timeout=40.0, retry_for=10.0, **endpoint):
        self.endpoint = Endpoint(addresses, **endpoint)
        self._timeout, self._retry_for = timeout, retry_for
        self._places = threading.BoundedSemaphore(connections)
        self._idle, self._lock = [], threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the connections that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def stream(self, **options):
        """A stream of events to the same master: see `Stream`."""
        return Stream(self.endpoint, **options)

    def _call(self, method, path, *, query=None, body=None, has_values=False):
        query = {name: value for name, value in (query or {}).items() if value is not None}
        timeout = max(self._timeout, query.get("deadline_ms", 0) / 1000 + 5)
        if query:
            path += "?" + urlencode({name: _in_query(value) for name, value in query.items()})
        if body is not None:
            body = json.dumps(body, allow_nan=False).encode()
        give_up = time.monotonic() + self._retry_for
        for attempt in itertools.count():
            try:
                answer = self._exchange(method, path, body, timeout)
                return decode(answer) if has_values else answer
            except MesophyllError as error:
                pause = max(backoff(attempt), error.retry_after or 0)
                # To look again changes nothing.
                may_repeat = error.passes or (method == "GET" and error.kind == "outcome_unknown")
                if not may_repeat or time.monotonic() + pause > give_up:
                    raise
                time.sleep(pause)

    def _exchange(self, method, path, body, timeout):
        if not self._places.acquire(timeout=timeout):
            raise MesophyllError("busy", "all connections are in use", sent=False)
        try:
            place = self.endpoint.place
            connection = self._take(place, timeout)
            try:
                status, headers, data = self._request(connection, method, path, body)
            except BaseException:
                connection.close()
                raise
            if connection.sock:
                with self._lock:
                    self._idle.append((place, connection))
        finally:
            self._places.release()
        if status < 300:
            return json.loads(data) if data else None
        try:
            error = json.loads(data)
            code, message, sent = error["code"], error["message"], error["sent"]
        except (ValueError, KeyError, TypeError):
            raise MesophyllError(
                "outcome_unknown", f"no error of a master: {status}", sent=True, status=status
            ) from None
        wait = headers.get("Retry-After", "")
        retry_after = int(wait) if wait.isdigit() else None
        raise MesophyllError.of_code(
            code, message, sent=sent, status=status, retry_after=retry_after
        )

    def _take(self, place, timeout):
        """A connection that was idle and is open, else a new one."""
        while True:
            with self._lock:
                if not self._idle:
                    break
                at, connection = self._idle.pop()
            # What can be read between two requests is the end.
            if at == place and not _is_readable(connection.sock):
                connection.sock.settimeout(timeout)
                return connection
            connection.close()
        host, port, is_tls = place
        if is_tls:
            connection = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=self.endpoint.ssl
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.connect()
        except OSError as error:
            self.endpoint.leave(place)
            raise MesophyllError(
                "not_sent", f"no connection to {host}:{port}: {error}", sent=False
            ) from error
        return connection

    def _request(self, connection, method, path, body):
        headers = {
            "Authorization": self.endpoint.authorization(),
            "Content-Type": "application/json",
        }
        try:
            try:
                connection.request(method, path, body, headers)
            except BrokenPipeError:
                pass  # A master that refuses a request says why, and does not read the rest.
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        except (OSError, http.client.HTTPException) as error:
            message = f"the connection broke before an answer came: {error!r}"
            raise MesophyllError("outcome_unknown", message, sent=True) from error


class AsyncClient(Operations):
    """The same for asyncio: each answer is to be awaited. Calls run on threads, one for each
    connection; for many events a stream is there, which needs none."""

    def __init__(self, addresses=None, *, connections=32, **options):
        self._client = Client(addresses, connections=connections, **options)
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="mesophyll")

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def close(self):
        """Waits for calls that are under way, and closes the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    def stream(self, **options):
        """A stream of events to the same master: see `AsyncStream`."""
        return AsyncStream(self._client.endpoint, **options)

    def _call(self, method, path, **options):
        call = functools.partial(self._client._call, method, path, **options)
        return asyncio.get_running_loop().run_in_executor(self._threads, call)


def _in_query(value):
    return str(value).lower() if isinstance(value, bool) else value


def _is_readable(sock):
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))

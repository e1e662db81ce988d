#!/usr/bin/env python3
"""A Mesophyll worker written by hand: the whole protocol (docs/protocol.md) on one page.

It attaches to a master that starts no workers itself, counts each tenant's events in the master's database, and answers
every event with what it counted:

    python3 -m venv venv && venv/bin/pip install websockets msgpack
    mesophyll master --external-workers --worker-tokens tokens.json --workers 1 --store memory: &
    venv/bin/python examples/worker.py --master 127.0.0.1:7450 --id 0 --tokens tokens.json &
    mesophyll dispatch guild:123 MESSAGE_CREATE '{"content": "hello"}'

A worker that answers quickly may do everything on one thread, as this one does; only the heartbeat has a thread of its own,
so that it is on time while an event is handled. Real workers hand events to others and go on reading.
"""

import argparse
import http.client
import json
import random
import sys
import threading
import urllib.parse

import msgpack
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

MESSAGE_MAX_BYTES = 16 * 1024 * 1024  # The largest message that either side sends.
HEARTBEAT_DEFAULT_S = 5.0  # Until the master's Hello says another interval.
REPLACED = 4001  # The close code that says: a newer worker has taken your id.
NEVER_GOES_AWAY = (400, 401, 404)  # A wrong number of workers, a wrong token, an unknown id.


# --- Values. Structs travel as arrays of their fields, enums as {"Variant": value} or the bare "Variant" ---------------


def to_khronos(value):
    """A Python value as a KhronosValue, which is what answers and stored values are."""
    if value is None:
        return "Null"
    if isinstance(value, bool):  # Before int: True is one, too.
        return {"Boolean": value}
    if isinstance(value, int):
        return {"Integer": value}
    if isinstance(value, float):
        return {"Float": value}
    if isinstance(value, str):
        return {"Text": value}
    if isinstance(value, list):
        return {"List": [to_khronos(item) for item in value]}
    if isinstance(value, dict):
        return {"Map": [[to_khronos(key), to_khronos(item)] for key, item in value.items()]}
    raise TypeError("no KhronosValue for %r" % (value,))


def from_khronos(value):
    """The inverse for the same kinds; other kinds (Buffer, Timestamptz, …) stay as they are."""
    if value == "Null":
        return None
    ((variant, inner),) = value.items()
    if variant == "List":
        return [from_khronos(item) for item in inner]
    if variant == "Map":
        return {from_khronos(key): from_khronos(item) for key, item in inner}
    return inner


def tenant_parts(tenant):
    """{"Guild": "123"} as ("guild", "123"). The snowflake is a text: a double could not hold it."""
    ((kind, snowflake),) = tenant.items()
    return kind.lower(), str(snowflake)


# --- The database. A worker never talks to the store itself, but asks the master over HTTP ----------------------------


class Refused(Exception):
    """The master's answer was not 200; its text says why."""


class Database:
    """POST /db/kv. Each request names the worker, its token and the tenant: a tenant of another worker is a 403."""

    def __init__(self, master, worker_id, token):
        self.master = master
        self.credentials = {"id": worker_id, "token": token}
        self.connection = None

    def kv(self, tenant, operation):
        kind, snowflake = tenant_parts(tenant)
        query = urllib.parse.urlencode(dict(self.credentials, tenant_type=kind, tenant_id=snowflake))
        # http.client sends a Content-Length for bytes, as the master demands, and keeps the connection open.
        self.connection = self.connection or http.client.HTTPConnection(self.master, timeout=30)
        try:
            self.connection.request("POST", "/db/kv?" + query, body=msgpack.packb(operation))
            response = self.connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            # Nothing is sent twice: whether a write happened is not known now.
            self.connection.close()
            self.connection = None
            raise Refused("no answer from the database: %s" % error) from error
        if response.status != 200:
            raise Refused("%d: %s" % (response.status, body.decode("utf-8", "replace").strip()))
        return msgpack.unpackb(body) if body else None

    def get(self, tenant, key, scopes):
        """The value under exactly this key and set of scopes, or None."""
        record = self.kv(tenant, {"Get": [scopes, key]})
        # A record is [id, key, value, scopes, created_at, last_updated_at].
        return None if record is None else from_khronos(record[2])

    def set(self, tenant, key, scopes, value):
        """Returns when the value would survive a power cut."""
        self.kv(tenant, {"Set": [scopes, key, to_khronos(value)]})


# --- What this worker does with an event ------------------------------------------------------------------------------


def handle(database, tenant, event):
    """Counts the tenant's events by name. An event is [name, author or nil, data]."""
    name, author, _data = event
    # Get and set are two steps. That is sound here, as a tenant has one worker and this one does one thing at a time.
    seen = (database.get(tenant, name, ["python-worker"]) or 0) + 1
    database.set(tenant, name, ["python-worker"], seen)
    return {"event": name, "author": author, "seen": seen}


# --- The link ---------------------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, master, worker_id, workers, token):
        self.database = Database(master, worker_id, token)
        query = {"id": worker_id, "token": token}
        if workers:
            # Optional: a master with another number of workers routes otherwise, and refuses.
            query["workers"] = workers
        self.url = "ws://%s/ws?%s" % (master, urllib.parse.urlencode(query))

    def run(self):
        """Keeps a link up, until the master says that this worker is not wanted."""
        backoff = 0.1
        while True:
            try:
                # Compression is not part of the protocol.
                with connect(self.url, max_size=MESSAGE_MAX_BYTES, compression=None) as link:
                    backoff = 0.1
                    self.serve(link)
            except InvalidStatus as error:
                if error.response.status_code in NEVER_GOES_AWAY:
                    sys.exit("the master refuses this worker: %s" % error.response.body.decode().strip())
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == REPLACED:
                    sys.exit("a newer worker has taken this id")
                say("the link has ended: %s" % closed)
            except (OSError, InvalidHandshake) as error:
                say("no link: %s" % error)
            # Twice as long each time, and a random part of that, so that many workers do not come back all at once.
            threading.Event().wait(random.random() * backoff)
            backoff = min(backoff * 2, 10.0)

    def serve(self, link):
        heartbeat = Heartbeat(link)
        try:
            while True:
                message = msgpack.unpackb(link.recv(), strict_map_key=False)
                ((variant, fields),) = message.items() if isinstance(message, dict) else ((message, []),)
                if variant == "Hello":
                    heartbeat.interval_s = fields[0] / 1000
                    say("attached; a heartbeat every %g s" % heartbeat.interval_s)
                elif variant == "DispatchEvent":
                    tenant, event, req_id = fields
                    self.answer(link, req_id, lambda: handle(self.database, tenant, event))
                elif variant == "RunScript":
                    self.answer(link, fields[4], lambda: fail("this worker runs no Luau"))
                elif variant == "DropWorker":
                    # "Close the tenant's VM": there is none here, so it is done.
                    self.answer(link, fields[1], lambda: None)
                # Everything else is an extension (CancelDispatch, UpdateTenantState, …): skipped by whoever does not know it.
        finally:
            heartbeat.stop()

    @staticmethod
    def answer(link, req_id, work):
        """Exactly one answer for each request id. Without an id nobody waits for one."""
        try:
            result = {"Ok": to_khronos(work())}
        except Exception as error:  # Whatever went wrong, the other side hears of it.
            result = {"Err": str(error)}
        if req_id is not None:
            link.send(msgpack.packb({"DispatchResponse": [req_id, result]}))


class Heartbeat:
    """Sends a heartbeat at once and at every interval. Three missing ones end the link; other traffic does not count."""

    def __init__(self, link):
        self.link = link
        self.interval_s = HEARTBEAT_DEFAULT_S
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, name="heartbeat", daemon=True)
        self.thread.start()

    def run(self):
        try:
            while True:
                self.link.send(msgpack.packb({"Heartbeat": []}))
                if self.stopped.wait(self.interval_s):
                    return
        except ConnectionClosed:
            pass  # The reader sees the same, and says so.

    def stop(self):
        self.stopped.set()
        self.thread.join()


def fail(why):
    raise RuntimeError(why)


def say(text):
    print("worker: " + text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description="A Mesophyll worker in Python")
    parser.add_argument("--master", default="127.0.0.1:7450", help="the master's worker-facing address")
    parser.add_argument("--id", type=int, default=0, help="this worker's number, from 0")
    parser.add_argument("--workers", type=int, help="how many workers the master has")
    parser.add_argument("--tokens", required=True, help="the file that the master has as --worker-tokens")
    args = parser.parse_args()
    with open(args.tokens, encoding="utf-8-sig") as file:
        token = json.load(file)[str(args.id)]
    try:
        Worker(args.master, args.id, args.workers, token).run()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()

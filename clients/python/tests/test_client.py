"""Plain calls against a real master."""

import asyncio
import json
import socket
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from mesophyll import AsyncClient, Client, MesophyllError, mint

from .support import SECRET, Master
from .test_values import FORMS


class Calls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.master = Master()
        cls.client = Client(**cls.master.options())

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.master.stop()

    def test_an_event_is_answered(self):
        data = {"content": "héllo", "id": 2**63 + 1, "none": None, "list": [1.5, True]}
        self.assertEqual(self.client.dispatch("guild:1", "ECHO", data), data)
        self.assertEqual(self.client.dispatch("user:1", "ECHO", 1, nowait=True), {})
        self.assertEqual(self.client.dispatch("guild:1", "AUTHOR"), "7")

    def test_another_author_needs_a_token_that_may_name_one(self):
        with self.assertRaises(MesophyllError) as caught:
            self.client.dispatch("guild:1", "AUTHOR", author="8")
        self.assertEqual((caught.exception.kind, caught.exception.code), ("refused", "Restricted"))
        with Client(**self.master.options(act_as_any=True)) as client:
            self.assertEqual(client.dispatch("guild:1", "AUTHOR", author="8"), "8")

    def test_errors_say_why_and_whether_it_ran(self):
        for call, kind, code, sent, status in [
            (lambda: self.client.dispatch("guild:1", "FAIL"), "script", "ScriptError", True, 422),
            (
                lambda: self.client.dispatch("guild:1", "WAIT", 9, deadline_ms=50),
                "deadline",
                "Deadline",
                True,
                504,
            ),
            (
                lambda: self.client.dispatch("guild:1", "x" * 300),
                "bad_input",
                "BadRequest",
                False,
                400,
            ),
            (
                lambda: self.client.get_tenant_state("guild:999"),
                "not_found",
                "NotFound",
                False,
                404,
            ),
        ]:
            with self.assertRaises(MesophyllError) as caught:
                call()
            error = caught.exception
            self.assertEqual(
                (error.kind, error.code, error.sent, error.status), (kind, code, sent, status)
            )
            self.assertFalse(error.passes)
        with Client(self.master.api, secret="of another master, of 32 bytes or more") as client:
            with self.assertRaises(MesophyllError) as caught:
                client.list_workers()
        self.assertEqual(caught.exception.kind, "invalid_token")

    def test_values_come_back_from_records_and_results(self):
        # The store takes finite numbers only.
        values = [value for value, form in FORMS if "$float" not in str(form)]
        self.client.kv_set("guild:2", "values", values, ["test"])
        record = self.client.kv_get("guild:2", "values", ["test"])
        self.assertEqual(record["value"], values)
        code = 'local ctx = ...; return ctx.KV:getrecord("values", {"test"}).value'
        # Luau has no such maps.
        values = [
            value for value, form in FORMS if "$float" not in str(form) and "$map" not in str(form)
        ]
        self.client.kv_set("guild:2", "values", values, ["test"])
        self.assertEqual(self.client.run_script("guild:2", "read", code), values)

    def test_records_are_found_and_deleted(self):
        self.client.kv_set("guild:3", "one", 1, ["a"])
        self.client.kv_set("guild:3", "other", 2, ["b"])
        self.assertEqual(
            [one["key"] for one in self.client.kv_find("guild:3", "o%")], ["one", "other"]
        )
        self.assertEqual(
            [one["key"] for one in self.client.kv_find("guild:3", "o%", scopes=["b"])], ["other"]
        )
        self.assertEqual(sorted(self.client.kv_list_scopes("guild:3")), ["a", "b"])
        self.assertIsNone(self.client.kv_delete("guild:3", "one", ["a"]))
        self.assertIsNone(self.client.kv_get("guild:3", "one", ["a"]))

    def test_each_example_of_the_description_is_accepted(self):
        """The examples in `GET /openapi.json`, as they stand there and in their order."""
        description = self.client._call("GET", "/openapi.json")
        count = 0
        for path, operations in description["paths"].items():
            for method, operation in operations.items():
                body = operation.get("requestBody", {}).get("content", {}).get("application/json")
                if not body:
                    continue
                for parameter in operation["parameters"]:
                    path = path.replace(f"{{{parameter['name']}}}", parameter.get("example", ""))
                self.client._call(method.upper(), path, body=body["example"])
                count += 1
        self.assertGreater(count, 8)

    def test_many_threads_share_few_connections(self):
        with (
            Client(**self.master.options(connections=2)) as client,
            ThreadPoolExecutor(16) as threads,
        ):
            answers = list(
                threads.map(lambda n: client.dispatch(f"guild:{n % 5}", "ECHO", n), range(200))
            )
            self.assertEqual(answers, list(range(200)))
            self.assertLessEqual(len(client._idle), 2)

    def test_a_token_that_is_made_by_hand_is_taken(self):
        token = mint(SECRET, 9, time.time() + 60)
        with Client(self.master.api, token=token) as client:
            self.assertEqual(client.dispatch("guild:1", "AUTHOR"), "9")


class AsyncCalls(unittest.IsolatedAsyncioTestCase):
    async def test_calls_of_tasks_run_side_by_side(self):
        master = Master()
        self.addCleanup(master.stop)
        async with AsyncClient(**master.options()) as client:
            answers = await asyncio.gather(
                *(client.dispatch("guild:1", "ECHO", n) for n in range(100))
            )
            self.assertEqual(answers, list(range(100)))
            await client.kv_set("guild:1", "key", b"bytes", ["test"])
            self.assertEqual((await client.kv_get("guild:1", "key", ["test"]))["value"], b"bytes")


class Repetition(unittest.TestCase):
    def test_a_master_that_starts_again_is_waited_for(self):
        master = Master()
        with Client(**master.options(retry_for=60)) as client:
            self.assertEqual(client.dispatch("guild:1", "ECHO", 1), 1)
            master.kill()
            with Client(**master.options(retry_for=0)) as impatient:
                with self.assertRaises(MesophyllError) as caught:
                    impatient.dispatch("guild:1", "ECHO", 1)
            self.assertEqual((caught.exception.kind, caught.exception.sent), ("not_sent", False))
            with ThreadPoolExecutor(1) as thread:
                answer = thread.submit(client.dispatch, "guild:1", "ECHO", 2)
                master.start()
                self.assertEqual(answer.result(), 2)
        master.stop()

    def test_only_what_was_not_sent_is_repeated(self):
        """A server of our own: what a master answers when it is busy, stops, or dies."""
        error = {"message": "", "code": "Busy", "sent": False}
        busy = (503, error)
        for answers, outcome in [
            ([busy, (503, {**error, "code": "NoWorker"}), (200, 5)], 5),
            ([(503, {**error, "sent": True})], "busy"),
            ([(502, {**error, "code": "OutcomeUnknown", "sent": True})], "outcome_unknown"),
            ([(422, {**error, "code": "Refused"})], "refused"),
            # It died after it had read the request.
            ([None], "outcome_unknown"),
            ([(500, "a proxy's words")], "outcome_unknown"),
        ]:
            with Scripted(answers) as server, Client(server.address, token="t") as client:
                try:
                    said = client.dispatch("guild:1", "ECHO")
                except MesophyllError as caught:
                    said = caught.kind
                self.assertEqual(said, outcome)
                self.assertEqual(server.asked, len(answers))

    def test_a_look_is_repeated_though_its_outcome_is_unknown(self):
        with Scripted([None, (200, [])]) as server, Client(server.address, token="t") as client:
            self.assertEqual(client.list_workers(), [])


class Scripted:
    """Answers one request after the other as it is told; None closes the connection instead."""

    def __init__(self, answers):
        self.answers, self.asked = answers, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.thread.join()

    def run(self):
        for answer in self.answers:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rb") as lines:
                length = 0
                while line := lines.readline().strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                lines.read(length)
                self.asked += 1
                if answer:
                    body = json.dumps(answer[1]).encode()
                    head = f"HTTP/1.1 {answer[0]} X\r\nContent-Length: {len(body)}\r\n"
                    connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)


if __name__ == "__main__":
    unittest.main()

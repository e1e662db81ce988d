"""Values that JSON lacks: each as the API writes it, and back."""

import math
import unittest
from datetime import datetime, timedelta, timezone

from mesophyll import Interval, Pairs, StringMap, Timestamp, TimeZone, Vector, decode, encode, mint
from mesophyll.endpoint import Endpoint
from mesophyll.values import path_of

MOMENT = "2024-02-29T12:34:56.123456789Z"
# As src/wire/json/tagged.rs promises them.
FORMS = [
    (None, None),
    (True, True),
    (-(2**63), -(2**63)),
    (2**64 - 1, 2**64 - 1),
    (1.5, 1.5),
    ("text", "text"),
    ([1, [None]], [1, [None]]),
    ({"b": 1, "a": {}}, {"b": 1, "a": {}}),
    (math.inf, {"$float": "inf"}),
    (-math.inf, {"$float": "-inf"}),
    (b"\x00\xff", {"$buffer": "AP8="}),
    (Vector(1.0, 0.5, -2.5), {"$vector": [1.0, 0.5, -2.5]}),
    (Vector(math.inf, 0.0, 0.0), {"$vector": [{"$float": "inf"}, 0.0, 0.0]}),
    ({1: None}, {"$map": [[1, None]]}),
    ({"$x": None}, {"$map": [["$x", None]]}),
    ({"$x": None, "y": None}, {"$x": None, "y": None}),
    (Pairs([("a", 1), ("a", 2)]), {"$map": [["a", 1], ["a", 2]]}),
    (Pairs([([], {1: b""})]), {"$map": [[[], {"$map": [[1, {"$buffer": ""}]]}]]}),
    (Timestamp.of(MOMENT), {"$timestamp": MOMENT}),
    (Interval(-1, 500_000_000), {"$interval": [-1, 500_000_000]}),
    (TimeZone("Europe/London"), {"$timezone": "Europe/London"}),
    (StringMap(b="1", a='"'), {"$string_map": {"b": "1", "a": '"'}}),
    ({"deep": [Interval(1, 0)]}, {"deep": [{"$interval": [1, 0]}]}),
]


class Values(unittest.TestCase):
    def test_each_form_is_written_and_read_back(self):
        for value, json in FORMS:
            self.assertEqual(encode(value), json)
            back = decode(json)
            self.assertEqual(back, value)
            self.assertEqual(encode(back), json)
        self.assertTrue(math.isnan(decode(encode(math.nan))))

    def test_moments_and_spans_of_the_standard_library(self):
        moment = decode({"$timestamp": MOMENT})
        self.assertEqual(moment, datetime(2024, 2, 29, 12, 34, 56, 123456, timezone.utc))
        plus_two = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
        self.assertEqual(encode(plus_two), {"$timestamp": "2024-01-01T00:00:00Z"})
        # Of a moment that was changed, the text is another one.
        self.assertEqual(
            encode(moment + timedelta(days=1)), {"$timestamp": "2024-03-01T12:34:56.123456Z"}
        )
        self.assertEqual(encode(timedelta(seconds=-0.5)), {"$interval": [-1, 500_000_000]})
        self.assertEqual(Interval(-1, 500_000_000).timedelta(), timedelta(seconds=-0.5))
        for wrong in (datetime(2024, 1, 1), object()):
            self.assertRaises((ValueError, TypeError), encode, wrong)

    def test_what_python_has_no_room_for_stays_as_it_is(self):
        far = {"$timestamp": "+12345-01-01T00:00:00Z"}
        self.assertEqual(decode([far, {"$unknown": 1}]), [far, {"$unknown": 1}])

    def test_keys_that_are_one_in_a_dict_stay_two(self):
        self.assertEqual(decode({"$map": [[1, "a"], [1.0, "b"]]}), [(1, "a"), (1.0, "b")])

    def test_only_a_tenant_makes_a_path(self):
        self.assertEqual(path_of("guild:123"), "guild/123")
        for wrong in ("guild:", "guild:1/../2", "other:1", "guild:1\n", "123"):
            self.assertRaises(ValueError, path_of, wrong)


class Tokens(unittest.TestCase):
    def test_a_token_is_what_the_master_makes(self):
        # Of src/api/token.rs.
        secret = "0123456789abcdef0123456789abcdef"
        expected = "123.1700000000.ee291f16e7c11196603788db04409babd546a81743aa5cef1c2257a431de1b13"
        self.assertEqual(mint(secret, 123, 1_700_000_000), expected)
        self.assertTrue(
            mint(secret, 123, 1_700_000_000, act_as_any=True).startswith("123*.1700000000.")
        )

    def test_a_token_is_renewed_at_half_of_its_life(self):
        endpoint = Endpoint("127.0.0.1:1", secret="s" * 32, lifetime=100)
        first = endpoint.authorization()
        self.assertEqual(endpoint.authorization(), first)
        endpoint._renew_at -= 51
        endpoint._lifetime = 200
        self.assertNotEqual(endpoint.authorization(), first)

    def test_addresses_are_read_as_the_commands_read_them(self):
        for text, place in [
            ("127.0.0.1:7451", ("127.0.0.1", 7451, False)),
            ("http://one:1/", ("one", 1, False)),
            ("tls:one:1", ("one", 1, True)),
            ("https://[::1]:1", ("[::1]", 1, True)),
        ]:
            self.assertEqual(Endpoint(text, token="t").place, place)
        self.assertRaises(ValueError, Endpoint, "one", token="t")

    def test_another_master_is_asked_where_one_is_gone(self):
        endpoint = Endpoint(["one:1", "two:2"], token="t")
        one = endpoint.place
        endpoint.leave(one)
        self.assertEqual(endpoint.place[0], "two")
        endpoint.leave(one)  # Of a call that began before.
        self.assertEqual(endpoint.place[0], "two")


if __name__ == "__main__":
    unittest.main()

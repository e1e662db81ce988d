// Values that JSON lacks: each as the API writes it, and back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode, fromJson, mint, pathOf, Timestamp, toJson, type Value } from "mesophyll";

import { FORMS, MOMENT } from "./forms.js";

test("each form is written and read back", () => {
  for (const [value, json] of FORMS) {
    assert.deepEqual(encode(value), json);
    assert.deepEqual(decode(json), value);
    assert.deepEqual(fromJson(toJson(json)), json);
  }
});

test("an object that looks like a tag is written as a map", () => {
  assert.deepEqual(encode({ $x: 1 }), { $map: [["$x", 1]] });
  assert.deepEqual(decode({ $unknown: 1 }), { $unknown: 1 });
});

test("a moment that was changed has another text", () => {
  const moment = new Timestamp(MOMENT);
  moment.setUTCFullYear(2028);
  assert.deepEqual(encode(moment), { $timestamp: "2028-02-29T12:34:56.123Z" });
  // Beyond what a Date has room for.
  const far = { $timestamp: "+345678-01-01T00:00:00Z" };
  assert.deepEqual(encode(decode(far)), far);
});

test("only whole numbers beyond 2^53 become a bigint", () => {
  const text =
    '{"12345678901234567890": "12345678901234567890", "a": [9007199254740991, -9007199254740993], "b": 1e400}';
  assert.deepEqual(fromJson(text), {
    "12345678901234567890": "12345678901234567890",
    a: [9007199254740991, -9007199254740993n],
    b: Infinity,
  });
  for (const same of ["0.12345678901234567", "12345678901234567.5", "12345678901234567e2"]) {
    assert.equal(fromJson(same), JSON.parse(same));
  }
  assert.equal(fromJson('["\\"1234567890123456789"]')?.toString(), '"1234567890123456789');
});

test("a member of any name stays a member", () => {
  const value = decode(fromJson('{"__proto__": {"$buffer": ""}, "x": 1}')) as {
    [name: string]: Value;
  };
  assert.deepEqual(Object.keys(value), ["__proto__", "x"]);
  assert.equal(toJson(encode(value)), '{"__proto__":{"$buffer":""},"x":1}');
});

test("only a tenant makes a path", () => {
  assert.equal(pathOf("guild:123"), "guild/123");
  for (const wrong of ["guild:", "guild:1/../2", "other:1", "123"])
    assert.throws(() => pathOf(wrong));
});

test("a token is what the master makes", () => {
  // Of src/api/token.rs.
  const expected =
    "123.1700000000.ee291f16e7c11196603788db04409babd546a81743aa5cef1c2257a431de1b13";
  assert.equal(mint("0123456789abcdef0123456789abcdef", 123, 1_700_000_000), expected);
  assert.match(
    mint("0123456789abcdef0123456789abcdef", 123, 1_700_000_000, true),
    /^123\*\.1700000000\./,
  );
});

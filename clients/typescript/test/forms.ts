// Values and how the API writes them, as src/wire/json/tagged.rs promises it.

import {
  Interval,
  Pairs,
  StringMap,
  Timestamp,
  TimeZone,
  Vector,
  type Json,
  type Value,
} from "mesophyll";

export const MOMENT = "2024-02-29T12:34:56.123456789Z";

export const FORMS: [Value, Json][] = [
  [null, null],
  [true, true],
  [-(2n ** 63n), -(2n ** 63n)],
  [2n ** 64n - 1n, 2n ** 64n - 1n],
  [1.5, 1.5],
  ["text", "text"],
  [
    [1, [null]],
    [1, [null]],
  ],
  [
    { b: 1, a: {} },
    { b: 1, a: {} },
  ],
  [Infinity, { $float: "inf" }],
  [-Infinity, { $float: "-inf" }],
  [NaN, { $float: "nan" }],
  [new Uint8Array([0, 255]), { $buffer: "AP8=" }],
  [new Vector(1, 0.5, -2.5), { $vector: [1, 0.5, -2.5] }],
  [new Vector(Infinity, 0, 0), { $vector: [{ $float: "inf" }, 0, 0] }],
  [new Map<Value, Value>([[1, null]]), { $map: [[1, null]] }],
  [new Map<Value, Value>([["$x", null]]), { $map: [["$x", null]] }],
  [
    { $x: null, y: null },
    { $x: null, y: null },
  ],
  [
    Pairs.from<[Value, Value]>([
      ["a", 1],
      ["a", 2],
    ]),
    {
      $map: [
        ["a", 1],
        ["a", 2],
      ],
    },
  ],
  [new Timestamp(MOMENT), { $timestamp: MOMENT }],
  [new Interval(-1, 500_000_000), { $interval: [-1, 500_000_000] }],
  [new TimeZone("Europe/London"), { $timezone: "Europe/London" }],
  [
    new StringMap([
      ["b", "1"],
      ["a", '"'],
    ]),
    { $string_map: { b: "1", a: '"' } },
  ],
  [{ deep: [new Interval(1, 0)] }, { deep: [{ $interval: [1, 0] }] }],
];

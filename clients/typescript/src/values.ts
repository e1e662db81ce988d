// Values that JSON lacks, which the API writes as an object with one key that starts with `$`, and
// integers that a number cannot hold.

import { randomUUID } from "node:crypto";

export type Json = null | boolean | number | bigint | string | Json[] | { [name: string]: Json };

/** What results and records are made of: JSON, and the classes of this file. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date
  | Interval
  | TimeZone
  | Vector
  | StringMap
  | Pairs
  | Map<Value, Value>
  | Value[]
  | { [name: string]: Value };

/** A moment; `text` keeps the digits below a millisecond. */
export class Timestamp extends Date {
  constructor(readonly text: string) {
    super(text);
  }
}

/** A span of time; the nanoseconds count forwards, also of a negative one. */
export class Interval {
  constructor(
    readonly seconds: number | bigint,
    readonly nanoseconds: number,
  ) {}
}

export class Vector {
  constructor(
    readonly x: number,
    readonly y: number,
    readonly z: number,
  ) {}
}

/** The name of a time zone. */
export class TimeZone {
  constructor(readonly name: string) {}
}

/** A map of texts that the other side reads only when it is asked for one of them. */
export class StringMap extends Map<string, string> {}

/** A map in which a key comes twice: a list of its pairs. */
export class Pairs extends Array<[Value, Value]> {}

/** A value as the API takes it. */
export function encode(value: Value): Json {
  if (typeof value === "number" && !Number.isFinite(value)) {
    return { $float: Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf" };
  }
  if (value === null || typeof value !== "object") return value;
  if (value instanceof Uint8Array) return { $buffer: Buffer.from(value).toString("base64") };
  if (value instanceof Date) {
    const isText = value instanceof Timestamp && Object.is(Date.parse(value.text), value.getTime());
    return { $timestamp: isText ? value.text : value.toISOString() };
  }
  if (value instanceof Interval) return { $interval: [value.seconds, value.nanoseconds] };
  if (value instanceof TimeZone) return { $timezone: value.name };
  if (value instanceof Vector) return { $vector: [value.x, value.y, value.z].map(encode) };
  if (value instanceof StringMap) return { $string_map: Object.fromEntries(value) };
  if (value instanceof Map || value instanceof Pairs) {
    return { $map: Array.from(value, ([key, item]) => [encode(key), encode(item)]) };
  }
  if (Array.isArray(value)) return value.map(encode);
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  if (entries.length === 1 && entries[0]?.[0].startsWith("$")) return encode(new Map(entries));
  return Object.fromEntries(entries.map(([key, item]) => [key, encode(item)]));
}

const DECODERS: { [tag: string]: (inner: any) => Value } = {
  $buffer: (text) => new Uint8Array(Buffer.from(text, "base64")),
  $float: (name) => ({ nan: NaN, inf: Infinity, "-inf": -Infinity })[name as string] ?? NaN,
  $interval: ([seconds, nanoseconds]) => new Interval(seconds, nanoseconds),
  $map: (pairs: [Json, Json][]) => {
    const decoded = pairs.map(([key, item]): [Value, Value] => [decode(key), decode(item)]);
    const map = new Map(decoded);
    return map.size === decoded.length ? map : Pairs.from(decoded);
  },
  $string_map: (strings) => new StringMap(Object.entries(strings)),
  $timestamp: (text) => new Timestamp(text),
  $timezone: (name) => new TimeZone(name),
  $vector: (numbers: Json[]) => new Vector(...(numbers.map(decode) as [number, number, number])),
};

/** What the API wrote as a value. */
export function decode(json: Json): Value {
  if (json === null || typeof json !== "object") return json;
  if (Array.isArray(json)) return json.map(decode);
  const entries = Object.entries(json);
  const [tag, inner] = entries[0] ?? [];
  const decoder =
    entries.length === 1 && Object.hasOwn(DECODERS, tag as string) && DECODERS[tag as string];
  if (decoder) return decoder(inner);
  return Object.fromEntries(entries.map(([key, item]) => [key, decode(item)]));
}

// Stands before the digits of an integer in a text, where no other text can have it.
const MARK = `${randomUUID()}:`;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, "g");
const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON in which a bigint is written with all its digits. */
export function toJson(value: unknown): string {
  let isMarked = false;
  const mark = (_: string, item: unknown) =>
    typeof item === "bigint" ? ((isMarked = true), MARK + item) : item;
  const text = JSON.stringify(value ?? null, mark);
  return isMarked ? text.replace(MARKED, "$1") : text;
}

/** The value of a JSON text; an integer beyond 2^53 becomes a bigint. */
export function fromJson(text: string): Json {
  if (!/(?<!\d)\d{16}/.test(text)) return JSON.parse(text);
  let isMarked = false;
  const marked = text.replace(TEXT_OR_NUMBER, (token) => {
    if (!/^-?\d{16,}$/.test(token) || Number.isSafeInteger(Number(token))) return token;
    isMarked = true;
    return `"${MARK}${token}"`;
  });
  if (!isMarked) return JSON.parse(text);
  return JSON.parse(marked, (_, item) =>
    typeof item === "string" && item.startsWith(MARK) ? BigInt(item.slice(MARK.length)) : item,
  );
}

/** `guild:123` as it stands in a path. */
export function pathOf(tenant: string): string {
  if (!/^(guild|user):[0-9]{1,20}$/.test(tenant))
    throw new Error(`a tenant is guild:ID or user:ID, not ${tenant}`);
  return tenant.replace(":", "/");
}

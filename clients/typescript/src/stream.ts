// The stream of events (`GET /i/stream`): one connection, many events under way, in order.
//
// Every event that is not settled holds one of the credits that the master gave, from `send` until
// its answer: where there is none, `send` waits, and so does its caller's source. Nothing is dropped.

import type { IncomingMessage } from "node:http";
import { WebSocket } from "ws";

import { backoff, type Endpoint } from "./endpoint.js";
import { MesophyllError } from "./errors.js";
import { decode, fromJson, toJson, type Json, type Value } from "./values.js";

export interface StreamOptions {
  /** At most so many events under way, if the master allows more. */
  credits?: number;
  /** How long an event is repeated that was not run, and the first link tried, in ms. */
  retryFor?: number;
  /** Hears of events that were sent with `want: "none"`; without it the console does. */
  onFailure?: (tenant: string, error: MesophyllError) => void;
}

export interface EventOptions {
  author?: string;
  deadlineMs?: number;
  /** "ack" and "none" are answered true: once it is in its tenant's queue, and at once. */
  want?: "result" | "ack" | "none";
  /**
   * An event with a key may be repeated after the link broke: within five minutes a master runs
   * what has the same key only once.
   */
  key?: string;
}

/** An event that is not settled. `number` counts them in the order of `send`. */
interface Event {
  number: number;
  tenant: string;
  text: string;
  hasKey: boolean;
  settle: (answer: Value) => void;
  fail: (error: MesophyllError) => void;
  giveUp: number;
  attempts: number;
}

/** What waits of a tenant whose event was refused: that one goes first, and alone. */
interface Lane {
  events: Event[];
  first?: Event;
}

interface Frame {
  hello?: { credits: number; max_bytes: number };
  goodbye?: { reason: string };
  id?: number;
  ok?: Json;
  error?: { kind: string; sent: boolean; message: string };
}

const ANSWER_MAX_BYTES = 64 * 1024 * 1024;
const HELLO_WITHIN_MS = 20_000;
// What waits for the socket beyond this is not written yet.
const UNSENT_MAX_BYTES = 1024 * 1024;
// A link of which nothing is heard is asked, and then is none.
const PING_EVERY_MS = 20_000;
// The token, or the address, is wrong: to come again does not help.
const REFUSALS = [400, 401, 403, 404];

export class Stream {
  private number = 0;
  private id = 0;
  // Of the master's hello: how many may be under way, and how large one may be.
  private credits = 0;
  private maxBytes = 0;
  // Those that are not settled, and those that wait for a credit.
  private open = 0;
  private readonly waiting: (() => void)[] = [];
  private flushed: (() => void)[] = [];
  // Where an event is: under way, by the id on the link; ready, in order; or held back.
  private underWay = new Map<number, Event>();
  private ready: Event[] = [];
  private lanes = new Map<string, Lane>();
  /** Ids whose frames have not been written. */
  private unwritten: number[] = [];
  private link?: WebSocket;
  private isUp = false;
  private failed?: MesophyllError;
  private attempt = 0;
  private timer?: NodeJS.Timeout;
  private opened: { resolve: () => void; reject: (error: Error) => void } = {
    resolve() {},
    reject() {},
  };

  private constructor(
    private readonly endpoint: Endpoint,
    private readonly options: StreamOptions,
  ) {}

  /** Opens a stream; `Client.stream` does. */
  static async open(endpoint: Endpoint, options: StreamOptions): Promise<Stream> {
    const stream = new Stream(endpoint, options);
    const isOpen = new Promise<void>((resolve, reject) => (stream.opened = { resolve, reject }));
    const late = new MesophyllError("not_sent", "no master answers", false);
    const timer = setTimeout(() => stream.end(late), Math.max(stream.retryFor, 1000));
    stream.connect();
    await isOpen.finally(() => clearTimeout(timer));
    return stream;
  }

  /**
   * Hands an event over as soon as there is a credit. The answer comes later, in what this one
   * resolves to.
   */
  send(
    tenant: string,
    name: string,
    data?: Json,
    options: EventOptions = {},
  ): Promise<{ answer: Promise<Value> }> {
    const { author, deadlineMs: deadline_ms, want = "result", key } = options;
    // For its credit to come back, a master has to say that it took the event.
    const asked = want === "none" ? "ack" : want;
    const text = toJson({
      tenant,
      name,
      data: data ?? null,
      want: asked,
      author,
      deadline_ms,
      key,
    });
    return new Promise((resolve, reject) => {
      const submit = () => {
        if (this.failed) {
          reject(this.failed);
          return this.release();
        }
        const answer = this.submit(tenant, text, key !== undefined);
        // An answer that is not looked at is no reason to end the process.
        answer.catch(
          want === "none" ? (this.options.onFailure ?? console.warn).bind(null, tenant) : () => {},
        );
        resolve({ answer: want === "none" ? Promise.resolve(true) : answer });
      };
      // Those that wait go on in their order, each at the moment in which it gets its credit.
      this.waiting.push(submit);
      this.wake();
    });
  }

  /** Sends an event and waits for its result. */
  async dispatch(
    tenant: string,
    name: string,
    data?: Json,
    options: EventOptions = {},
  ): Promise<Value> {
    const { answer } = await this.send(tenant, name, data, options);
    return answer;
  }

  /** Waits until every event is settled. */
  flush(): Promise<void> {
    return this.open === 0
      ? Promise.resolve()
      : new Promise((resolve) => this.flushed.push(resolve));
  }

  /** Waits for what is under way, but no longer than this, and closes the link. */
  async close(timeout = 60_000): Promise<void> {
    let timer;
    await Promise.race([
      this.flush(),
      new Promise((resolve) => (timer = setTimeout(resolve, timeout))),
    ]);
    clearTimeout(timer);
    this.end(new MesophyllError("not_sent", "the stream was closed", false));
  }

  // --- The link ----------------------------------------------------------------------------------

  private get retryFor(): number {
    return this.options.retryFor ?? 30_000;
  }

  private connect(): void {
    const place = this.endpoint.place;
    const host = place.host.includes(":") ? `[${place.host}]` : place.host;
    const link = new WebSocket(`${place.isTls ? "wss" : "ws"}://${host}:${place.port}/i/stream`, {
      ...this.endpoint.tls,
      headers: { Authorization: this.endpoint.authorization() },
      perMessageDeflate: false,
      maxPayload: ANSWER_MAX_BYTES,
      handshakeTimeout: HELLO_WITHIN_MS,
    });
    this.link = link;
    let isHeard = true;
    const hello = setTimeout(() => link.terminate(), 2 * HELLO_WITHIN_MS);
    const pings = setInterval(() => {
      if (!isHeard) return link.terminate();
      isHeard = false;
      if (link.readyState === WebSocket.OPEN) link.ping();
    }, PING_EVERY_MS);
    link.on("pong", () => (isHeard = true));
    link.on("message", (text: Buffer) => {
      isHeard = true;
      try {
        const frame = fromJson(text.toString()) as Frame;
        if (frame.hello) clearTimeout(hello);
        this.take(frame);
      } catch {
        link.terminate();
      }
    });
    link.on("unexpected-response", (_: unknown, response: IncomingMessage) => {
      const status = response.statusCode ?? 0;
      if (REFUSALS.includes(status)) {
        this.end(
          new MesophyllError("refused", `the master refuses the stream: ${status}`, false, {
            status,
          }),
        );
      }
      link.terminate();
    });
    // It closes after it.
    link.on("error", () => {});
    link.on("close", () => {
      clearTimeout(hello);
      clearInterval(pings);
      this.lose();
      this.endpoint.leave(place);
      if (this.failed) return;
      this.timer = setTimeout(() => this.connect(), backoff(this.attempt));
      this.attempt += 1;
    });
  }

  private take(frame: Frame): void {
    if (frame.hello) {
      this.credits = Math.min(frame.hello.credits, this.options.credits ?? Infinity);
      this.maxBytes = frame.hello.max_bytes;
      [this.isUp, this.attempt] = [true, 0];
      this.opened.resolve();
    } else if (frame.goodbye) {
      // It answers what is under way and closes; what is new waits for the next link.
      this.isUp = false;
      this.recall();
    } else {
      this.takeAnswer(frame);
    }
    this.wake();
    this.pump();
  }

  private write(): void {
    const link = this.link;
    while (link && this.unwritten.length > 0 && link.bufferedAmount < UNSENT_MAX_BYTES) {
      const id = this.unwritten.shift() as number;
      link.send(`{"id":${id},${this.underWay.get(id)?.text.slice(1)}`, () => this.write());
    }
  }

  /** What has not been written is ready again. */
  private recall(): void {
    for (const id of this.unwritten) {
      this.ready.push(this.underWay.get(id) as Event);
      this.underWay.delete(id);
    }
    this.unwritten = [];
  }

  /** The link is lost: what may be repeated is ready again, in its order. */
  private lose(): void {
    this.isUp = false;
    this.recall();
    const [underWay, lanes] = [this.underWay, this.lanes];
    this.underWay = new Map();
    this.lanes = new Map();
    for (const lane of lanes.values()) this.ready.push(...lane.events);
    for (const event of underWay.values()) {
      if (event.hasKey) {
        this.ready.push(event);
      } else {
        this.fail(
          event,
          new MesophyllError("outcome_unknown", "the link broke before an answer came", true),
        );
      }
    }
    this.ready.sort(inOrder);
  }

  /** No link will come again: everything is settled. */
  private end(error: MesophyllError): void {
    this.failed ??= error;
    clearTimeout(this.timer);
    this.lose();
    for (const event of this.ready.splice(0)) this.fail(event, this.failed);
    this.wake();
    this.opened.reject(this.failed);
    this.link?.close(1000);
  }

  // --- Events ------------------------------------------------------------------------------------

  private submit(tenant: string, text: string, hasKey: boolean): Promise<Value> {
    return new Promise((settle, fail) => {
      const number = (this.number += 1);
      const event = { number, tenant, text, hasKey, settle, fail, giveUp: 0, attempts: 0 };
      const lane = this.lanes.get(tenant);
      if (Buffer.byteLength(text) + 24 > this.maxBytes) {
        this.fail(event, new MesophyllError("bad_input", "larger than an event may be", false));
      } else if (lane) {
        lane.events.push(event);
      } else {
        this.ready.push(event);
        this.pump();
      }
    });
  }

  private pump(): void {
    while (this.isUp && this.ready.length > 0 && this.underWay.size < this.credits) {
      const event = this.ready.shift() as Event;
      const lane = this.lanes.get(event.tenant);
      if (lane) {
        lane.events.push(event);
        lane.events.sort(inOrder);
      } else {
        this.start(event);
      }
    }
    if (this.isUp) this.write();
  }

  private start(event: Event): void {
    const id = (this.id += 1);
    this.underWay.set(id, event);
    this.unwritten.push(id);
  }

  private takeAnswer(frame: Frame): void {
    const event = this.underWay.get(frame.id as number);
    if (!event) throw new Error("an answer to nothing that was asked");
    this.underWay.delete(frame.id as number);
    const error =
      frame.error && new MesophyllError(frame.error.kind, frame.error.message, frame.error.sent);
    if (error?.passes && !this.isLate(event)) return this.hold(event);
    if (error) {
      this.fail(event, error);
    } else {
      event.settle(decode(frame.ok ?? null));
      this.release();
    }
    const lane = this.lanes.get(event.tenant);
    if (lane?.first === event) {
      // It was taken: those behind it may go.
      this.lanes.delete(event.tenant);
      this.ready = [...lane.events, ...this.ready].sort(inOrder);
    }
  }

  private isLate(event: Event): boolean {
    event.giveUp ||= Date.now() + this.retryFor;
    return Date.now() >= event.giveUp;
  }

  /** The event was not run: it is repeated, before those of its tenant that come after it. */
  private hold(event: Event): void {
    const known = this.lanes.get(event.tenant);
    const lane: Lane = known ?? { events: [] };
    this.lanes.set(event.tenant, lane);
    lane.events.push(event);
    lane.events.sort(inOrder);
    if (known && lane.first !== event) return;
    lane.first = undefined;
    setTimeout(() => {
      // Where the link ended meanwhile, all of them are ready again.
      if (!this.isUp || this.lanes.get(event.tenant) !== lane) return;
      const first = lane.events.shift() as Event;
      first.attempts += 1;
      lane.first = first;
      this.start(first);
      this.write();
    }, backoff(event.attempts));
  }

  private fail(event: Event, error: MesophyllError): void {
    event.fail(error);
    this.release();
  }

  private release(): void {
    this.open -= 1;
    if (this.open === 0) for (const wake of this.flushed.splice(0)) wake();
    this.wake();
  }

  /** Gives credits to those that wait for one; where there will be none, their error. */
  private wake(): void {
    while (this.waiting.length > 0 && (this.open < this.credits || this.failed)) {
      this.open += 1;
      this.waiting.shift()?.();
    }
  }
}

function inOrder(a: Event, b: Event): number {
  return a.number - b.number;
}

// Plain calls: pooled connections, and repetition of what was not done.

import http from "node:http";
import https from "node:https";
import { setTimeout as pause } from "node:timers/promises";

import { backoff, Endpoint, type EndpointOptions } from "./endpoint.js";
import { MesophyllError } from "./errors.js";
import { Operations, type CallOptions } from "./operations.js";
import { Stream, type StreamOptions } from "./stream.js";
import { decode, fromJson, toJson, type Json } from "./values.js";

export interface ClientOptions extends EndpointOptions {
  /** How many there are at most. */
  connections?: number;
  /** How long to wait for an answer, in ms. */
  timeout?: number;
  /** How long to repeat what was not done, because a queue was full or a worker away, in ms. */
  retryFor?: number;
}

export class Client extends Operations {
  private readonly endpoint: Endpoint;
  private readonly agent: http.Agent;
  private readonly timeout: number;
  private readonly retryFor: number;

  constructor(options: ClientOptions = {}) {
    super();
    this.endpoint = new Endpoint(options);
    this.timeout = options.timeout ?? 40_000;
    this.retryFor = options.retryFor ?? 10_000;
    const pool = { keepAlive: true, maxSockets: options.connections ?? 32 };
    this.agent = this.endpoint.place.isTls
      ? new https.Agent({ ...pool, ...this.endpoint.tls })
      : new http.Agent(pool);
  }

  /** Closes the connections. */
  close(): void {
    this.agent.destroy();
  }

  /** A stream of events to the same master. */
  stream(options: StreamOptions = {}): Promise<Stream> {
    return Stream.open(this.endpoint, options);
  }

  protected async call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    const query = Object.entries(options.query ?? {}).filter(([, value]) => value !== undefined);
    const timeout = Math.max(this.timeout, Number(options.query?.["deadline_ms"] ?? 0) + 5000);
    const search =
      query.length > 0
        ? `?${new URLSearchParams(query.map(([name, value]) => [name, String(value)]))}`
        : "";
    const body = options.body === undefined ? undefined : toJson(options.body);
    const giveUp = Date.now() + this.retryFor;
    for (let attempt = 0; ; attempt += 1) {
      try {
        const answer = await this.exchange(method, path + search, body, timeout);
        return (options.hasValues ? decode(answer) : answer) as T;
      } catch (error) {
        if (!(error instanceof MesophyllError)) throw error;
        const wait = Math.max(backoff(attempt), (error.retryAfter ?? 0) * 1000);
        // To look again changes nothing.
        const mayRepeat = error.passes || (method === "GET" && error.kind === "outcome_unknown");
        if (!mayRepeat || Date.now() + wait > giveUp) throw error;
        await pause(wait);
      }
    }
  }

  /** One request, and the JSON of its answer. */
  private exchange(
    method: string,
    path: string,
    body: string | undefined,
    timeout: number,
  ): Promise<Json> {
    const place = this.endpoint.place;
    const headers: http.OutgoingHttpHeaders = { Authorization: this.endpoint.authorization() };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      headers["Content-Length"] = Buffer.byteLength(body);
    }
    const { host, port, isTls } = place;
    return new Promise((resolve, reject) => {
      const ask = isTls ? https.request : http.request;
      const request = ask({ host, port, path, method, headers, agent: this.agent, timeout });
      let isConnected = false;
      request.on("socket", (socket) => {
        isConnected = !socket.connecting;
        socket.once(isTls ? "secureConnect" : "connect", () => (isConnected = true));
      });
      request.on("timeout", () => request.destroy(new Error("no answer in time")));
      request.on("error", (cause) => {
        if (isConnected) {
          reject(
            new MesophyllError("outcome_unknown", `no answer came: ${cause.message}`, true, {
              cause,
            }),
          );
        } else {
          this.endpoint.leave(place);
          reject(
            new MesophyllError(
              "not_sent",
              `no connection to ${host}:${port}: ${cause.message}`,
              false,
              { cause },
            ),
          );
        }
      });
      request.on("response", (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", (cause) => {
          reject(
            new MesophyllError("outcome_unknown", `the answer broke off: ${cause.message}`, true, {
              cause,
            }),
          );
        });
        response.on("end", () => {
          try {
            resolve(answerOf(response, Buffer.concat(chunks).toString()));
          } catch (error) {
            reject(error);
          }
        });
      });
      request.end(body);
    });
  }
}

function answerOf(response: http.IncomingMessage, text: string): Json {
  const status = response.statusCode ?? 0;
  if (status < 300) return text === "" ? (undefined as unknown as Json) : fromJson(text);
  let error: { code?: unknown; message?: unknown; sent?: unknown };
  try {
    error = JSON.parse(text);
  } catch {
    error = {};
  }
  if (typeof error?.code !== "string" || typeof error.sent !== "boolean") {
    throw new MesophyllError("outcome_unknown", `no error of a master: ${status}`, true, {
      status,
    });
  }
  const retryAfter = Number(response.headers["retry-after"]) || undefined;
  throw MesophyllError.ofCode(error.code, String(error.message), error.sent, status, retryAfter);
}

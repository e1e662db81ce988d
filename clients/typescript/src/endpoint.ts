// Where masters are, and the tokens that they want.

import { createHmac } from "node:crypto";
import type { SecureContextOptions } from "node:tls";

/** A token for a user, good until `expires` (Unix seconds), as `mesophyll token` makes it. */
export function mint(
  secret: string | Uint8Array,
  user: string | number,
  expires: number,
  actAsAny = false,
): string {
  const signed = `${user}${actAsAny ? "*" : ""}.${Math.floor(expires)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("hex")}`;
}

/** How long to wait before a repetition, in ms: not in step with other callers. */
export function backoff(attempt: number): number {
  return Math.min(50 * 2 ** Math.min(attempt, 10), 2000) * (0.5 + Math.random() / 2);
}

export interface EndpointOptions {
  /** `HOST:PORT`, `http://…`, `https://…` or `tls:HOST:PORT`; several of a cluster's masters. */
  addresses?: string | string[];
  token?: string;
  /** At least 32 bytes; with it tokens are minted and renewed. */
  secret?: string | Uint8Array;
  user?: string | number;
  /** The tokens may name an event's author. */
  actAsAny?: boolean;
  /** Of a token, in seconds. */
  lifetime?: number;
  /** Certificates, for https. */
  tls?: SecureContextOptions;
}

export interface Place {
  host: string;
  port: number;
  isTls: boolean;
}

export class Endpoint {
  readonly tls: SecureContextOptions;
  private readonly places: Place[];
  private at = 0;
  private token = "";
  private renewAt = 0;

  constructor(private readonly options: EndpointOptions) {
    const { MESOPHYLL_MASTER_API, MESOPHYLL_API, MESOPHYLL_INTERNAL_TOKEN, MESOPHYLL_API_SECRET } =
      process.env;
    const addresses =
      options.addresses ?? (MESOPHYLL_MASTER_API || MESOPHYLL_API || "127.0.0.1:7451");
    this.places = [addresses].flat().map(place);
    this.tls = options.tls ?? {};
    if (options.token === undefined && options.secret === undefined) {
      this.options = { ...options, token: MESOPHYLL_INTERNAL_TOKEN, secret: MESOPHYLL_API_SECRET };
    }
    if (this.options.token) {
      [this.token, this.renewAt] = [this.options.token, Infinity];
    } else if (!this.options.secret) {
      throw new Error("there is neither a token nor a secret to mint one");
    }
  }

  /** The header's value. A minted token has at least half of its lifetime left. */
  authorization(): string {
    const now = Date.now() / 1000;
    if (now >= this.renewAt) {
      const { secret, user = 0, actAsAny, lifetime = 3600 } = this.options;
      this.token = mint(secret ?? "", user, now + lifetime, actAsAny);
      this.renewAt = now + lifetime / 2;
    }
    return `Internal ${this.token}`;
  }

  /** The master that is asked now. */
  get place(): Place {
    return this.places[this.at % this.places.length] as Place;
  }

  /** Asks another master from now on, if there is one: this one is not there. */
  leave(place: Place): void {
    if (place === this.place) this.at += 1;
  }
}

function place(address: string): Place {
  const match = /^(tls:|https:\/\/|http:\/\/)?\[?([^[\]/]+?)\]?:(\d+)\/?$/.exec(address);
  if (!match) throw new Error(`an address is HOST:PORT, not ${address}`);
  const [, scheme = "", host = "", port] = match;
  return { host, port: Number(port), isTls: scheme === "tls:" || scheme === "https://" };
}

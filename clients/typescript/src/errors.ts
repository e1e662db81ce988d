// The one error of this package, and when what failed may be repeated.

// As the stream and a replay name them; other codes are their own names in small letters.
const KINDS: { [code: string]: string } = {
  ScriptError: "script",
  NotOwner: "no_worker",
  Banned: "refused",
  Quarantined: "refused",
  Restricted: "refused",
  BadRequest: "bad_input",
  TooLarge: "bad_input",
};
// As plain calls name them.
const CODES: { [kind: string]: string } = {
  script: "ScriptError",
  not_sent: "NoWorker",
  bad_input: "BadRequest",
  duplicate: "Conflict",
};
const PASSES = ["busy", "no_worker", "not_sent", "unavailable"];

/**
 * A call or an event that did not succeed. `kind` and `code` say why, in the words of the stream
 * and of plain calls. `sent`: what was asked for may have been done.
 */
export class MesophyllError extends Error {
  readonly code: string;
  readonly status?: number;
  readonly retryAfter?: number;

  constructor(
    readonly kind: string,
    text: string,
    readonly sent: boolean,
    more: { code?: string; status?: number; retryAfter?: number; cause?: unknown } = {},
  ) {
    super(`${kind}: ${text}`, { cause: more.cause });
    this.name = "MesophyllError";
    const pascal = kind.replace(/(?:^|_)(.)/g, (_, first: string) => first.toUpperCase());
    this.code = more.code ?? CODES[kind] ?? pascal;
    this.status = more.status;
    this.retryAfter = more.retryAfter;
  }

  /** The error that a plain call was answered with. */
  static ofCode(
    code: string,
    text: string,
    sent: boolean,
    status: number,
    retryAfter?: number,
  ): MesophyllError {
    const kind = KINDS[code] ?? code.replace(/\B(?=[A-Z])/g, "_").toLowerCase();
    return new MesophyllError(kind, text, sent, { code, status, retryAfter });
  }

  /** Nothing was done, and a moment later it may be: it may be repeated as it is. */
  get passes(): boolean {
    return !this.sent && PASSES.includes(this.kind);
  }
}

// Signs in, asks for /i/status every two seconds, and keeps what the rest of the page shows.
//
// Whatever comes from outside is set as text, never as markup; the page's policy (page.rs) would not let it be markup either.

const POLL_MS = 2_000;
const POLL_HIDDEN_MS = 15_000;
const ANSWER_MS = 8_000;
// Longer than dropping a tenant may take (35 s), which answers when it is done.
const ACTION_MS = 45_000;
// A poll that has no answer after so long counts as a lost connection, though one may still come.
const LOST_MS = 3_000;
const KEPT_MS = 300_000;
// A line in a chart breaks where nothing came for so long. Browsers let hidden tabs ask once a minute.
const BREAK_MS = 90_000;
// A worker's rates are of so long: two seconds alone would jump.
const WINDOW_MS = 10_000;

const $ = (id) => document.getElementById(id);

// The token is here and nowhere else. `session` changes with it, so that an answer to an earlier one is not shown.
let token = null;
let session = 0;
let timer = null;
let polling = null;
let polledAt = 0;
let shown = null;
let failed = "";
// Statuses of the last WINDOW_MS, oldest first, and points of the charts of the last KEPT_MS.
let recent = [];
let points = [];

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Only what differs is set: a screen reader tells changes, and 1,024 workers have many cells.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// ---- Asking

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Relative, so that the page also works behind a proxy that adds a prefix.
async function ask(method, path, limit, abort = new AbortController()) {
  const stop = setTimeout(() => abort.abort(), limit);
  try {
    const response = await fetch(path, {
      method,
      headers: { Authorization: `Internal ${token}` },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: abort.signal,
    });
    const text = await response.text();
    let body = null;
    try {
      body = text === "" ? null : JSON.parse(text);
    } catch {
      // Somebody between us and the master answered.
    }
    if (response.ok) return body;
    throw new Refused(response.status, body && body.message ? plainText(body.message) : `the answer was ${response.status}`);
  } finally {
    clearTimeout(stop);
  }
}

// One at a time: the next one is planned when this one has ended.
async function poll() {
  clearTimeout(timer);
  if (token === null || polling) return;
  const mine = session;
  const abort = new AbortController();
  polling = abort;
  polledAt = Date.now();
  try {
    // The first answer brings the minutes before it.
    const path = points.length === 0 ? "i/status?history" : "i/status";
    const status = await ask("GET", path, ANSWER_MS, abort);
    if (mine !== session) return;
    if (!status || !Array.isArray(status.workers)) throw new Error("what answers there is not a master");
    failed = "";
    take(status);
  } catch (error) {
    if (mine !== session) return;
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) return signOut(error.message);
    failed = error instanceof Refused || !(error instanceof TypeError || error.name === "AbortError")
      ? error.message : "the master does not answer";
    if (shown === null) return signOut(`Not signed in: ${failed}.`, true);
  } finally {
    if (polling === abort) polling = null;
    if (mine === session) timer = setTimeout(poll, document.hidden ? POLL_HIDDEN_MS : POLL_MS);
  }
  tick();
}

// ---- Signing in and out

function signIn() {
  const field = $("token");
  const given = field.value.trim().replace(/^(Authorization:\s*)?Internal\s+/i, "");
  if (!/^\d+\*?\.\d+\.[0-9a-f]{64}$/i.test(given)) {
    refuse(given === "" ? "There is no token in the field." : "This is not a token: one is USER.EXPIRY.SIGNATURE, without blanks.");
    return;
  }
  token = given;
  session += 1;
  $("enter").disabled = true;
  setText($("enter"), "Signing in…");
  refuse("");
  poll();
}

function refuse(reason) {
  setText($("gate-reason"), reason);
  $("token").setAttribute("aria-invalid", String(reason !== ""));
  if (reason !== "") $("token").focus();
}

function signOut(reason = "", keepField = false) {
  token = null;
  session += 1;
  clearTimeout(timer);
  if (polling) polling.abort();
  polling = null;
  shown = null;
  failed = "";
  recent = [];
  points = [];
  if ($("ask").open) $("ask").close();
  $("enter").disabled = false;
  setText($("enter"), "Sign in");
  if (!keepField) $("token").value = "";
  $("board").hidden = true;
  $("who").hidden = true;
  $("gate").hidden = false;
  setText($("about"), "");
  setText($("notice"), "");
  // Nothing of what was shown stays behind in the page.
  for (const table of ["workers", "masters", "busiest", "errors", "quarantine"]) $(table).tBodies[0].replaceChildren();
  document.title = "Mesophyll";
  refuse(reason === "" ? "" : sentence(reason));
  $("token").focus();
}

function sentence(text) {
  const upper = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(upper) ? upper : `${upper}.`;
}

// ---- Taking a status in

function take(status) {
  const now = Date.now();
  const sum = sumOf(status.workers);
  const before = recent.length > 0 ? recent[recent.length - 1] : null;
  // Another master, or the same one started anew, counts from zero.
  const isSame = before !== null && before.status.master.pid === status.master.pid && before.status.at_ms < status.at_ms;
  if (!isSame) recent = [];
  const recalled = points.length === 0 ? recall(status, now) : null;
  const wasLost = before !== null && now - before.at > BREAK_MS;
  const bounds = status.latency_bounds_us;
  const point = isSame
    ? between(before.sum, sum, status.at_ms - before.status.at_ms, bounds)
    : recalled ? between(recalled, sum, status.at_ms - recalled.at_ms, bounds) : { rate: null, failures: null, p50: null, p99: null };
  points.push({ at: now, memory: sum.memory, breaks: !(isSame || recalled) || wasLost, ...point });
  points = points.filter((kept) => kept.at > now - KEPT_MS && kept.at <= now);
  const byId = new Map(status.workers.map((worker) => [worker.id, worker]));
  recent.push({ at: now, status, sum, byId });
  while (recent.length > 2 && status.at_ms - recent[1].status.at_ms >= WINDOW_MS) recent.shift();
  const isFirst = shown === null;
  shown = recent[recent.length - 1];
  if (isFirst) enter();
  render();
}

// Points of the time before the page was opened, from what the master kept; returns the last of it.
function recall(status, now) {
  const history = (status.history || []).map((sum) => ({ ...sum, at: now - (status.at_ms - sum.at_ms) }));
  points = history.slice(1).map((sum, index) => {
    const point = between(history[index], sum, sum.at_ms - history[index].at_ms, status.latency_bounds_us);
    return { at: sum.at, memory: sum.memory, breaks: index === 0, ...point };
  });
  return history.pop() || null;
}

function enter() {
  $("token").value = "";
  $("enter").disabled = false;
  setText($("enter"), "Sign in");
  $("gate").hidden = true;
  $("board").hidden = false;
  $("who").hidden = false;
  $("workers-title").focus();
}

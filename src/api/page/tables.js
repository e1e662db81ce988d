// Shows a status: the top line, the workers, the masters, tenants, errors and the quarantine.

function render() {
  const { status } = shown;
  const { master, workers } = status;
  document.title = `Mesophyll: ${workers.filter((worker) => worker.state === "ready").length} of ${workers.length} ready`;
  const kind = `${master.mode}, store ${master.store}${master.external_workers ? ", external workers" : ""}`;
  const called = master.name === undefined ? "" : `${plainText(master.name, 64)} · `;
  setText($("about"), `${called}${master.version} · ${kind} · pid ${master.pid} · up ${ageText(status.at_ms / 1000)}`);
  const [user, expiry] = token.replace("*", "").split(".");
  const left = Number(expiry) - Date.now() / 1000;
  setText($("user"), `User ${user}${left < 86400 ? `, for ${ageText(left)}` : ""}`);
  renderCharts();
  renderWorkers(status);
  renderRolling(status);
  renderMasters(status.masters);
  renderBusiest(status.busiest);
  renderErrors(status.errors);
  renderQuarantine(status.quarantine);
  tick();
}

// The line that tells whether what is shown is alive; every second, as its age goes on without an answer.
function tick() {
  if (shown === null) return;
  const age = Date.now() - shown.at;
  const isLost = failed !== "" || (polling !== null && Date.now() - polledAt > LOST_MS);
  setText($("link-state"), isLost ? "Connection lost" : "Live");
  $("link").querySelector(".mark").className = `mark ${isLost ? "dead" : "ready"}`;
  setText($("link-age"), age < 1500 ? "now" : `${ageText(age / 1000)} old`);
  $("lost").hidden = !isLost;
  if (isLost) {
    const why = failed === "" ? "the master does not answer" : failed;
    setText($("lost"), `Connection lost: ${why}. What is shown is ${ageText(age / 1000)} old. Trying again by itself.`);
    document.title = "Mesophyll: connection lost";
  }
}

// Rows by key, kept from one status to the next with whatever is focused or open in them. While somebody points at a table or is in
// it with the keyboard, its rows stay where they are, so that nobody presses what has just moved there.
function rows(table, columns, items, keyOf) {
  const body = table.tBodies[0];
  const known = new Map(Array.from(body.rows, (row) => [row.dataset.key, row]));
  const isHeld = body.matches(":hover, :focus-within");
  let place = body.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = body.insertRow();
      row.setAttribute("role", "row");
      row.dataset.key = key;
      for (const column of columns) row.append(cell(column));
    }
    columns.forEach((column, at) => column.fill(row.cells[at], item));
    if (isHeld) continue;
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  for (const row of known.values()) {
    if (row.contains(document.activeElement)) document.getElementById(table.getAttribute("aria-labelledby")).focus();
    row.remove();
  }
  table.closest(".scroll").classList.toggle("empty", items.length === 0);
}

function cell(column) {
  const made = element(column.isName ? "th" : "td", column.className || "");
  made.setAttribute("role", column.isName ? "rowheader" : "cell");
  if (column.isName) made.scope = "row";
  if (column.label) made.dataset.label = column.label;
  return made;
}

function headings(table, columns) {
  const row = table.createTHead().insertRow();
  row.setAttribute("role", "row");
  table.tHead.setAttribute("role", "rowgroup");
  table.append(element("tbody"));
  table.tBodies[0].setAttribute("role", "rowgroup");
  for (const column of columns) {
    const heading = element("th", column.className);
    heading.scope = "col";
    heading.setAttribute("role", "columnheader");
    heading.append(column.label ? column.label : element("span", "unseen", "Actions"));
    row.append(heading);
  }
}

const text = (label, className, write) => ({ label, className, fill: (node, item) => setText(node, write(item)) });
const figure = (label, write) => text(label, "number", write);
const name = (label, write) => ({ ...text(label, "name", write), isName: true });

// Text from outside on one line; what has more opens.
function foldable(label, write, most) {
  const fill = (node, item) => {
    const whole = plainText(write(item) || "");
    const [first] = whole.split("\n", 1);
    const short = first.length > most ? `${first.slice(0, most)}…` : first;
    node.classList.toggle("blank", whole === "");
    if (short === whole) return setText(node, short);
    // Opened by hand it stays open.
    let details = node.querySelector("details");
    if (!details) {
      details = element("details");
      details.append(element("summary"), element("div", "more"));
      node.replaceChildren(details);
    }
    setText(details.firstChild, short);
    setText(details.lastChild, whole);
  };
  return { label, className: "wide", fill };
}

// Buttons of a row; `make` says for an item which there are: [word, what it is for, what it does].
function buttons(make) {
  const fill = (node, item) => {
    make(item).forEach(([word, label, act, isOff], at) => {
      const button = node.children[at] || node.appendChild(element("button"));
      button.type = "button";
      setText(button, word);
      if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
      button.disabled = Boolean(isOff);
      button.onclick = act;
    });
  };
  return { className: "acts", fill };
}

// ---- Workers

const STATE_KINDS = { dead: "bad", failed: "bad", stopped: "warn", draining: "warn", starting: "warn", connected: "warn" };

function fillState(node, worker) {
  if (!node.firstChild) node.append(element("span", "mark"), document.createTextNode(""));
  const [mark, word] = node.childNodes;
  const text = worker.restart_needed ? `${worker.state}, restart needed` : worker.state;
  if (word.data !== text) {
    mark.className = `mark ${worker.state}`;
    mark.setAttribute("aria-hidden", "true");
    node.className = `state ${STATE_KINDS[worker.state] || (worker.restart_needed ? "warn" : "")}`;
    word.data = text;
  }
}

// What a worker did within the window.
function lately(worker) {
  const [oldest] = recent;
  const before = oldest.byId.get(worker.id);
  if (oldest === shown || !before) return { rate: 0, failures: 0, p50: null, p99: null };
  const sums = [sumOf([before]), sumOf([worker])];
  return between(sums[0], sums[1], shown.status.at_ms - oldest.status.at_ms, shown.status.latency_bounds_us);
}

const WORKER_COLUMNS = [
  name("Worker", (item) => String(item.worker.id)),
  { label: "State", className: "state", fill: (node, item) => fillState(node, item.worker) },
  figure("Pid", ({ worker }) => worker.pid === null ? "–" : String(worker.pid)),
  name("Sandbox", ({ worker }) => worker.sandbox || "–"),
  figure("Uptime", ({ worker }) => ageText(worker.uptime_s)),
  figure("Heartbeat", ({ worker }) => worker.heartbeat_age_ms === null ? "–" : ageText(worker.heartbeat_age_ms / 1000)),
  figure("In flight", ({ worker }) => countText(worker.in_flight)),
  figure("Waiting", ({ worker }) => countText(worker.waiting)),
  figure("Events/s", ({ lately }) => rateText(lately.rate)),
  figure("p50", ({ lately }) => durationText(lately.p50)),
  figure("p99", ({ lately }) => durationText(lately.p99)),
  figure("Failures/s", ({ lately }) => rateText(lately.failures)),
  figure("Memory", ({ worker }) => bytesText(worker.memory_bytes)),
  figure("VMs", ({ worker }) => countText(worker.vms)),
  figure("Restarts", ({ worker }) => countText(worker.restarts)),
  foldable("Last exit", ({ worker }) => worker.last_exit, 48),
  buttons(({ worker }) => [
    worker.state === "stopped" || worker.state === "failed"
      ? ["Start…", `Start worker ${worker.id}`, () => confirmStart(worker.id)]
      : ["Restart…", `Restart worker ${worker.id}`, () => confirmRestart(worker.id)],
    ["Kill…", `Kill worker ${worker.id}`, () => confirmKill(worker.id), worker.state === "stopped"],
  ]),
];

function renderWorkers({ workers }) {
  const items = workers.map((worker) => ({ worker, lately: lately(worker) }));
  rows($("workers"), WORKER_COLUMNS, items, (item) => String(item.worker.id));
  const counts = new Map();
  for (const worker of workers) counts.set(worker.state, (counts.get(worker.state) || 0) + 1);
  const told = Array.from(counts, ([state, count]) => `${count} ${state}`).join(", ");
  setText($("workers-summary"), told);
}

function renderRolling({ rolling, workers }) {
  const done = rolling.restarted.length + rolling.skipped.length;
  const skipped = rolling.skipped.length > 0 ? `, ${rolling.skipped.length} skipped as stopped` : "";
  const told = () => {
    if (rolling.running) return `Rolling restart: ${done} of ${workers.length} done${skipped}`;
    if (rolling.number === 0) return "";
    if (rolling.error) return `The last rolling restart stopped: ${plainText(rolling.error)}`;
    return `Last rolling restart: ${rolling.restarted.length} of ${workers.length} restarted${skipped}`;
  };
  setText($("rolling"), told());
  $("rolling-bar").hidden = !rolling.running;
  $("rolling-bar").max = workers.length;
  $("rolling-bar").value = done;
  $("roll").disabled = rolling.running;
}

// ---- Masters, errors, tenants, quarantine

const MASTER_COLUMNS = [
  name("Name", (item) => plainText(item.name, 64)),
  text("State", "dim", (item) => plainText(item.state, 16)),
  figure("Lease", (item) => durationText(item.lease_ms === 0 ? null : item.lease_ms * 1000)),
  figure("Shards", (item) => countText(item.shards)),
  figure("Wanted", (item) => countText(item.wanted)),
  text("Version", "dim", (item) => plainText(item.version, 64)),
  text("API", "dim", (item) => plainText(item.api, 64)),
];

function renderMasters(masters) {
  $("masters-section").hidden = masters.length < 2;
  rows($("masters"), MASTER_COLUMNS, masters, (item) => item.name);
}

const dropButton = (tenant) => ["Drop…", `Drop ${tenant}`, () => confirmDrop(tenant)];

const ERROR_COLUMNS = [
  text("Last", "number", (item) => `${ageText(item.last_s)} ago`),
  figure("Times", (item) => countText(item.count)),
  { ...text("Tenant", "name", (item) => plainText(item.tenant, 64)), isName: true },
  text("Kind", "dim", (item) => plainText(item.kind, 64)),
  { ...foldable("Event", (item) => item.event, 64), className: "event" },
  foldable("Message", (item) => item.message, 160),
  buttons((item) => [dropButton(item.tenant)]),
];

function renderErrors(errors) {
  rows($("errors"), ERROR_COLUMNS, errors, (item) => String(item.id));
  setText($("errors-summary"), errors.length === 0 ? "None since the master started." : "newest first; the same ones together");
}

const BUSIEST_COLUMNS = [
  name("Tenant", (item) => plainText(item.tenant, 64)),
  figure("Events", (item) => countText(item.events)),
  figure("Running time", (item) => item.us > 0 ? durationText(item.us) : "–"),
  figure("Share", (item) => item.all_us > 0 ? `${(100 * item.us / item.all_us).toFixed(1)} %` : "–"),
  buttons((item) => [dropButton(item.tenant)]),
];

function renderBusiest(busiest) {
  const items = busiest.tenants.map((tenant) => ({ ...tenant, all_us: busiest.us }));
  rows($("busiest"), BUSIEST_COLUMNS, items, (item) => item.tenant);
  const told = busiest.tenants.length === 0 ? "No event in the last minutes." : `by running time, of the last ${ageText(busiest.seconds)}`;
  setText($("busiest-summary"), told);
}

const QUARANTINE_COLUMNS = [
  name("Tenant", (item) => plainText(item.tenant, 64)),
  figure("Since", (item) => `${ageText(item.since_s)} ago`),
  foldable("Reason", (item) => item.reason, 240),
  buttons((item) => [["Lift…", `Lift the quarantine of ${item.tenant}`, () => confirmLift(item.tenant)]]),
];

function renderQuarantine(quarantine) {
  rows($("quarantine"), QUARANTINE_COLUMNS, quarantine, (item) => item.tenant);
  setText($("quarantine-summary"), quarantine.length === 0 ? "No tenant is quarantined." : `${quarantine.length} quarantined`);
}

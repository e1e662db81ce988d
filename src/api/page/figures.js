// Figures of the status page: differences, quantiles and how they are written. Nothing here touches the page.

// All outcomes of dispatches but "ok" are failures.
function failuresOf(outcomes) {
  return totalOf(outcomes) - (outcomes.ok || 0);
}

function totalOf(outcomes) {
  return Object.values(outcomes).reduce((sum, count) => sum + count, 0);
}

// What all workers have done so far, as if they were one.
function sumOf(workers) {
  const sum = { events: 0, failures: 0, counts: [], us: 0, memory: 0 };
  const seen = new Set();
  for (const worker of workers) {
    sum.events += totalOf(worker.outcomes);
    sum.failures += failuresOf(worker.outcomes);
    sum.us += worker.latency.sum_us;
    worker.latency.counts.forEach((count, at) => { sum.counts[at] = (sum.counts[at] || 0) + count; });
    // Worker threads share a process, and each of them tells its whole memory.
    if (worker.pid === null || !seen.has(worker.pid)) sum.memory += worker.memory_bytes || 0;
    seen.add(worker.pid);
  }
  return sum;
}

// What happened between two sums: rates a second, and quantiles in microseconds or null where nothing was answered.
function between(before, after, milliseconds, bounds) {
  const counts = after.counts.map((count, at) => count - (before.counts[at] || 0));
  const rate = (from, to) => Math.max(0, to - from) * 1000 / Math.max(1, milliseconds);
  return {
    rate: rate(before.events, after.events),
    failures: rate(before.failures, after.failures),
    p50: quantile(counts, bounds, 0.5, after.us - before.us),
    p99: quantile(counts, bounds, 0.99, after.us - before.us),
  };
}

// Where in its bucket a quantile lies is not known: it is taken to be spread evenly. The last bucket has no upper end. None took
// longer than all together did.
function quantile(counts, bounds, share, most) {
  const total = counts.reduce((sum, count) => sum + Math.max(0, count), 0);
  if (total === 0) return null;
  let left = total * share;
  for (let at = 0; at < counts.length; at++) {
    if (counts[at] > 0 && left <= counts[at]) {
      const low = at === 0 ? 0 : bounds[at - 1];
      const high = at < bounds.length ? bounds[at] : low;
      return Math.min(most, low + (high - low) * left / counts[at]);
    }
    left -= Math.max(0, counts[at]);
  }
  return bounds[bounds.length - 1];
}

// How figures are written: a value and its unit.

function rateText(rate) {
  if (rate === 0) return "0";
  return rate < 10 ? rate.toFixed(1) : countText(Math.round(rate));
}

function countText(count) {
  return count.toLocaleString("en");
}

function durationText(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1e3) return `${Math.max(1, Math.round(us))} µs`;
  if (us < 1e4) return `${(us / 1e3).toFixed(1)} ms`;
  if (us < 1e6) return `${Math.round(us / 1e3)} ms`;
  return us < 6e7 ? `${(us / 1e6).toFixed(1)} s` : ageText(us / 1e6);
}

function bytesText(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const mib = bytes / 1048576;
  if (mib >= 10240) return `${(mib / 1024).toFixed(1)} GiB`;
  return mib < 10 ? `${mib.toFixed(1)} MiB` : `${countText(Math.round(mib))} MiB`;
}

function ageText(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

// Text from outside as it may be shown: what would be invisible, or turn the text around, is written as its number, so that no
// name of an event can look like another one. It is bounded, as a page with megabytes of text is none.
function plainText(text, most = 2000) {
  const short = Array.from(String(text).slice(0, most * 2)).slice(0, most).join("");
  const cut = short.length < String(text).length ? "…" : "";
  return short.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (char) => {
    if (char === "\n") return char;
    return char === "\t" ? " " : `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  }) + cut;
}

// The charts: lines over the last five minutes, drawn as SVG from `points`, with the figure under the pointer.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 60;

// `floor`: drawn on a logarithmic scale from there, as a median would be flat below its slowest hundredth.
const CHARTS = [
  { title: "Events a second", lines: ["rate"], write: rateText },
  { title: "Answered after", lines: ["p50", "p99"], names: ["p50", "p99"], write: durationText, floor: 100 },
  { title: "Failures a second", lines: ["failures"], write: rateText, className: "bad" },
  { title: "Workers’ memory", lines: ["memory"], write: bytesText },
];

function svg(name, parent, className) {
  const made = document.createElementNS(SVG, name);
  if (className) made.setAttribute("class", className);
  parent.append(made);
  return made;
}

function makeChart(chart) {
  const box = element("figure", `chart ${chart.className || ""}`);
  const caption = element("figcaption");
  chart.when = element("span");
  caption.append(element("span", "", chart.title), chart.when);
  chart.value = element("p", "value");
  chart.picture = svg("svg", box);
  chart.picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  chart.picture.setAttribute("preserveAspectRatio", "none");
  chart.picture.setAttribute("role", "img");
  const base = svg("line", chart.picture);
  for (const [attribute, value] of [["x1", 0], ["x2", WIDTH], ["y1", HEIGHT], ["y2", HEIGHT]]) base.setAttribute(attribute, value);
  chart.area = svg("path", chart.picture, "area");
  chart.paths = chart.lines.map((_, at) => svg("path", chart.picture, at === 1 ? "second" : ""));
  chart.cursor = svg("line", chart.picture, "cursor");
  const axis = element("div", "axis");
  chart.top = element("span");
  axis.append(element("span", "", "−5 min"), chart.top, element("span", "", "now"));
  box.append(caption, chart.value, chart.picture, axis);
  chart.picture.addEventListener("pointermove", (event) => {
    const frame = chart.picture.getBoundingClientRect();
    chart.pointer = (event.clientX - frame.left) / Math.max(1, frame.width);
    renderChart(chart);
  });
  for (const end of ["pointerleave", "pointercancel"]) {
    chart.picture.addEventListener(end, () => { chart.pointer = undefined; renderChart(chart); });
  }
  return box;
}

function renderCharts() {
  CHARTS.forEach(renderChart);
}

const isGiven = (value) => value !== null && value !== undefined;

function renderChart(chart) {
  const last = points.length > 0 ? points[points.length - 1] : null;
  const now = last ? last.at : Date.now();
  const most = Math.max(0, ...points.flatMap((point) => chart.lines.map((line) => point[line]).filter(isGiven)));
  const x = (point) => (WIDTH * (1 - (now - point.at) / KEPT_MS)).toFixed(1);
  const y = (value) => (HEIGHT - height(chart, value, most) * (HEIGHT - 4)).toFixed(1);
  chart.paths.forEach((path, at) => path.setAttribute("d", lineThrough(chart.lines[at], x, y).d));
  chart.area.setAttribute("d", lineThrough(chart.lines[0], x, y).area);
  const at = pointUnder(chart, now) || last;
  writeValue(chart, at);
  setText(chart.when, at && at !== last ? new Date(at.at).toLocaleTimeString() : "");
  const cursor = at && at !== last ? x(at) : -10;
  for (const [attribute, value] of [["x1", cursor], ["x2", cursor], ["y1", 0], ["y2", HEIGHT]]) chart.cursor.setAttribute(attribute, value);
  chart.cursor.style.visibility = cursor === -10 ? "hidden" : "visible";
  setText(chart.top, most > 0 ? `most ${chart.write(most)}${chart.floor ? ", log scale" : ""}` : "");
  const told = `${chart.title} over the last five minutes: now ${chart.value.textContent}${most > 0 ? `, at most ${chart.write(most)}` : ""}`;
  if (chart.picture.getAttribute("aria-label") !== told) chart.picture.setAttribute("aria-label", told);
}

// From 0 to 1.
function height(chart, value, most) {
  if (most <= 0) return 0;
  if (!chart.floor) return value / most;
  return Math.max(0, Math.log(value / chart.floor)) / Math.max(1, Math.log(most / chart.floor));
}

// A line breaks where there is no figure and where the page had lost the master. A point alone is a short dash.
function lineThrough(line, x, y) {
  let d = "";
  let area = "";
  let run = [];
  const finish = () => {
    if (run.length === 1) run.push([(Number(run[0][0]) + 1).toFixed(1), run[0][1]]);
    if (run.length > 0) {
      const through = run.map((at) => at.join(" ")).join("L");
      d += `M${through}`;
      area += `M${run[0][0]} ${HEIGHT}L${through}L${run[run.length - 1][0]} ${HEIGHT}Z`;
    }
    run = [];
  };
  for (const point of points) {
    if (point.breaks || !isGiven(point[line])) finish();
    if (isGiven(point[line])) run.push([x(point), y(point[line])]);
  }
  finish();
  return { d, area };
}

function pointUnder(chart, now) {
  if (chart.pointer === undefined || points.length === 0) return null;
  const at = now - KEPT_MS * (1 - chart.pointer);
  return points.reduce((near, point) => Math.abs(point.at - at) < Math.abs(near.at - at) ? point : near);
}

function writeValue(chart, point) {
  const values = chart.lines.map((line) => chart.write(point && isGiven(point[line]) ? point[line] : chart.write === rateText ? 0 : null));
  if (!chart.names) return setText(chart.value, values[0]);
  if (!chart.value.firstChild) {
    chart.names.forEach((word, at) => {
      const part = element("span", "part");
      part.append(element("small", at === 1 ? "second" : "", word), " ", element("span", "figure"));
      chart.value.append(part, " ");
    });
  }
  chart.value.querySelectorAll(".figure").forEach((node, at) => setText(node, values[at]));
}

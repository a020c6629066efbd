// Two small graphs over the last fifteen minutes: traffic as columns, latency as lines.
// The pointer or the arrow keys read a point; a sentence says the whole for screen readers.

import { draw, make, mark, say } from "./dom.js";
import * as format from "./format.js";

const WIDTH = 600;
const HEIGHT = 96;
const SPAN = 15 * 60;

/** Parts of a graph that differ: its series from the ground up, its top, and its words. */
const KINDS = {
  traffic: {
    title: "Traffic",
    unit: "per second",
    series: [
      ["fine", "served"],
      ["client", "4xx"],
      ["server", "failed"],
    ],
    top: (points) => Math.max(...points.map((point) => point.rate), 0),
    tick: (value) => `${format.rate(value)}/s`,
    paths: columns,
    read: (point) =>
      `${format.rate(point.rate)}/s, ${format.count(point.server)} failed, ` +
      `${format.count(point.client)} answered 4xx`,
    sum: sumOfTraffic,
  },
  latency: {
    title: "Latency",
    unit: "",
    series: [
      ["p50", "p50"],
      ["p90", "p90"],
      ["p99", "p99"],
    ],
    top: (points) => Math.max(...points.map((point) => point.p99 ?? 0), 0),
    tick: format.latency,
    paths: lines,
    read: (point) =>
      point.p50 === null
        ? "no exchange ended"
        : `p50 ${format.latency(point.p50)}, p90 ${format.latency(point.p90)}, ` +
          `p99 ${format.latency(point.p99)}`,
    sum: sumOfLatency,
  },
};

/** Make a graph; `update(points, now)` of what is returned draws it. */
export function graph(name) {
  const kind = KINDS[name];
  const paths = kind.series.map(([series]) => draw("path", { class: `series ${series}` }));
  const cursor = draw("line", { class: "cursor", y1: 0, y2: HEIGHT, hidden: "" });
  const middle = draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 });
  const plot = draw(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", tabindex: 0, role: "img" },
    middle, ...paths, cursor,
  );
  const top = make("span", { class: "tick" });
  const reading = make("output", { class: "reading", "aria-live": "polite" });
  const legend = make(
    "span", { class: "legend" },
    ...kind.series.map(([series, word]) => make("span", { class: `key ${series}` }, word)),
  );
  const figure = make(
    "figure", { class: `graph ${name}` },
    make("figcaption", {}, make("span", { class: "title" }, kind.title), legend),
    make("div", { class: "plot" }, top, plot, reading),
    make("div", { class: "axis", "aria-hidden": "true" },
      make("span", {}, "15 min ago"), make("span", {}, "now")),
  );
  const state = { kind, plot, cursor, reading, figure, points: [], now: 0, index: null };
  listen(state);
  figure.update = (points, now) => {
    state.points = points;
    state.now = now;
    const most = format.roundUp(kind.top(points));
    say(top, points.length ? kind.tick(most) : "");
    kind.paths(points, now, most).forEach((path, index) => mark(paths[index], "d", path));
    mark(plot, "aria-label", kind.sum(points));
    show(state);
  };
  return figure;
}

/** Turn a route's history into points: what one sample covers, and what happened in it. */
export function pointsOf(history, axis) {
  return axis.at.map((at, index) => {
    const requests = history.requests[index];
    const seconds = axis.seconds[index];
    const client = history.client_errors[index];
    const server = history.server_errors[index];
    const [p50, p90, p99] = ["p50", "p90", "p99"].map((name) => history[name][index]);
    const fine = Math.max(0, requests - client - server);
    return { at, seconds, requests, rate: requests / seconds, fine, client, server, p50, p90, p99 };
  });
}

const across = (at, now) => WIDTH * Math.min(1, Math.max(0, 1 - (now - at) / SPAN));
const up = (value, most) => HEIGHT - (HEIGHT - 2) * Math.min(1, value / most);
const short = (value) => Math.round(value * 10) / 10;

function columns(points, now, most) {
  const paths = ["", "", ""];
  for (const point of points) {
    const left = short(across(point.at - point.seconds, now));
    const right = short(across(point.at, now));
    let ground = 0;
    ["fine", "client", "server"].forEach((name, index) => {
      const value = point[name] / point.seconds;
      if (!value || right <= left) return;
      // A failure among thousands must still be seen: a column has a pixel at least.
      const low = up(ground, most);
      const high = Math.min(up(ground + value, most), low - 1.5);
      paths[index] += `M${left} ${short(low)}V${short(high)}H${right}V${short(low)}Z`;
      ground += value;
    });
  }
  return paths;
}

function lines(points, now, most) {
  return ["p50", "p90", "p99"].map((name) => {
    let path = "";
    let drawing = false;
    for (const point of points) {
      if (point[name] === null) {
        drawing = false;
        continue;
      }
      const x = short(across(point.at - point.seconds / 2, now));
      path += `${drawing ? "L" : "M"}${x} ${short(up(point[name], most))}`;
      // A point that stands alone would be an invisible line.
      if (!drawing) path += "h1.5";
      drawing = true;
    }
    return path;
  });
}

function sumOfTraffic(points) {
  const total = (name) => points.reduce((sum, point) => sum + point[name], 0);
  const peak = Math.max(...points.map((point) => point.rate), 0);
  return (
    `Traffic over the last 15 minutes: ${format.count(total("requests"))} requests, ` +
    `at most ${format.rate(peak)} per second; ${format.count(total("server"))} failed, ` +
    `${format.count(total("client"))} answered 4xx. Arrow keys read single points.`
  );
}

function sumOfLatency(points) {
  const known = points.filter((point) => point.p99 !== null);
  if (!known.length) return "Latency over the last 15 minutes: no exchange ended.";
  const last = known[known.length - 1];
  const worst = Math.max(...known.map((point) => point.p99));
  return (
    `Latency over the last 15 minutes: last p50 ${format.latency(last.p50)}, ` +
    `p99 ${format.latency(last.p99)}; worst p99 ${format.latency(worst)}. ` +
    "Arrow keys read single points."
  );
}

function listen(state) {
  const { plot } = state;
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const at = state.now - SPAN * (1 - (event.clientX - box.left) / box.width);
    const index = state.points.findIndex((point) => at <= point.at);
    move(state, index < 0 ? state.points.length - 1 : index);
  });
  plot.addEventListener("pointerleave", () => move(state, null));
  plot.addEventListener("blur", () => move(state, null));
  plot.addEventListener("keydown", (event) => {
    const last = state.points.length - 1;
    const from = state.index ?? last + (event.key === "ArrowLeft" ? 1 : 0);
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") move(state, null);
    if (to === undefined) return;
    event.preventDefault();
    move(state, Math.min(last, Math.max(0, to)));
  });
}

function move(state, index) {
  state.index = index !== null && index >= 0 && state.points.length ? index : null;
  // The point is remembered by its time, because points move left while one reads.
  state.at = state.index === null ? null : state.points[state.index].at;
  show(state);
}

function show(state) {
  const index = state.at ? state.points.findIndex((point) => point.at === state.at) : -1;
  state.index = index < 0 ? null : index;
  state.cursor.toggleAttribute("hidden", index < 0);
  if (index < 0) {
    say(state.reading, "");
    return;
  }
  const point = state.points[index];
  const x = across(point.at - point.seconds / 2, state.now);
  mark(state.cursor, "x1", x);
  mark(state.cursor, "x2", x);
  say(state.reading, `${format.clock(point.at)}  ${state.kind.read(point)}`);
}

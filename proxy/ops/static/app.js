// Asks the proxy for its status and shows it. Every two seconds while somebody looks, twice a
// minute in the background, more and more seldom while the proxy does not answer.

import { byId, keep, make, mark, say } from "./dom.js";
import { showFailures } from "./failures.js";
import * as format from "./format.js";
import { showGraphs, showRoutes, showTokens } from "./routes.js";

const POLL = 2000;
const POLL_HIDDEN = 30000;
const POLL_FAILED = [2000, 4000, 8000, 15000];
const ANSWER_WITHIN = 10000;

const STATES = {
  starting: ["Starting", "warning"],
  serving: ["Serving", "ok"],
  draining: ["Draining", "warning"],
  stopped: ["Stopped", "failing"],
};

const page = {
  report: null,
  sampledAt: undefined, // of the graphs on the page
  skew: 0, // seconds that the proxy's clock is ahead of the browser's
  failures: 0,
  timer: 0,
  asking: false,
  conditions: new Map(),
};

const browserTime = () => Date.now() / 1000;
const proxyTime = () => browserTime() + page.skew;

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_WITHIN) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function poll() {
  if (page.asking) return;
  page.asking = true;
  clearTimeout(page.timer);
  try {
    let report = await ask("status?history=0");
    if (report.sampled_at !== page.sampledAt) report = await ask("status");
    page.failures = 0;
    show(report);
  } catch (error) {
    page.failures += 1;
    showLost(error);
  } finally {
    page.asking = false;
    page.timer = setTimeout(poll, pause());
  }
}

function pause() {
  if (page.failures) return POLL_FAILED[Math.min(page.failures, POLL_FAILED.length) - 1];
  return document.hidden ? POLL_HIDDEN : POLL;
}

function show(report) {
  page.report = report;
  page.skew = report.time - browserTime();
  showState(report);
  showTiles(report);
  showRoutes(report, report.time);
  if (report.history) {
    showGraphs(report);
    page.sampledAt = report.sampled_at;
  }
  showFailures(report.failures, report.time);
  announce(report);
  const failing = report.routes.filter((route) => route.condition.level === "failing").length;
  document.title = `${failing ? `${failing} failing: ` : ""}Cloud Run Auth Proxy`;
}

function showState(report) {
  const [word, level] = STATES[report.state] ?? [report.state, "idle"];
  say(byId("state"), report.note ? `${word}: ${report.note}` : word);
  mark(byId("state"), "data-level", level);
  say(byId("live"), "Live");
  mark(byId("live"), "data-live", "yes");
  showReload(report.last_reload);
  say(byId("version"), `Version ${report.version} (${report.build}), Python ${report.python}`);
  const facts = [
    `Up for ${format.stretch(report.uptime_seconds)}`,
    `listening on ${report.listeners.join(", ") || "nothing yet"}`,
    report.workers > 1 ? `${report.workers} workers` : "",
    report.configuration ? `configured by ${report.configuration}` : "",
    reloaded(report),
  ];
  say(byId("facts"), `${facts.filter(Boolean).join(", ")}.`);
}

/** Return what became of the last reload that was taken; one that was not is a notice. */
function reloaded(report) {
  const at = report.last_reload.succeeded_at;
  return at - report.started_at > 1 ? `reloaded ${format.stretch(report.time - at)} ago` : "";
}

function showReload(last) {
  const notice = byId("notice");
  notice.hidden = last.successful;
  if (last.successful) return;
  say(notice, `The last reload changed nothing: ${last.problem}`);
}

function showTiles(report) {
  const { recent } = report.totals;
  const tokens = report.routes.filter((route) => route.token);
  const valid = tokens.filter((route) => route.token.expires_at !== null);
  const tiles = [
    ["Requests", `${format.rate(recent.requests / recent.seconds)}/s`, "over the last minute", ""],
    ["Failed", format.share(recent.server_errors, recent.requests),
      `${format.count(recent.server_errors)} of ${format.count(recent.requests)}`,
      recent.server_errors ? "failing" : ""],
    ["Median latency", format.latency(recent.percentiles.p50),
      `p90 ${format.latency(recent.percentiles.p90)}, p99 ${format.latency(recent.percentiles.p99)}`, ""],
    ["In flight", format.count(report.totals.in_flight), "exchanges now", ""],
    ["Tokens", tokens.length ? `${valid.length} of ${tokens.length}` : "none",
      tokens.length ? "routes have one" : "no route uses one",
      tokens.some((route) => route.token.error && route.token.expires_at === null) ? "failing" : ""],
  ];
  keep(byId("tiles"), tiles, ([term]) => term,
    ([term]) => make("div", { class: "tile" }, make("dt", {}, term),
      make("dd", { class: "value" }), make("dd", { class: "more" })),
    (tile, [, value, more, level]) => {
      say(tile.children[1], value);
      say(tile.children[2], more);
      mark(tile, "data-level", level);
    });
}

function showLost(error) {
  mark(byId("live"), "data-live", "no");
  say(byId("live"), "Not connected");
  const seen = page.report ? ` What stands here is from ${format.clock(page.report.time)}.` : "";
  const notice = byId("notice");
  say(notice, `The proxy does not answer.${seen}`);
  notice.hidden = false;
  if (page.failures === 1) say(byId("announcer"), notice.textContent);
  // A restarted proxy counts from nothing, so its graphs are asked for anew.
  page.sampledAt = undefined;
  console.debug(error);
}

/** Tell screen readers what has changed for the better or worse, and nothing else. */
function announce(report) {
  const news = [];
  for (const { name, condition } of report.routes) {
    const before = page.conditions.get(name);
    const trouble = ["warning", "failing"].includes(condition.level);
    const was = ["warning", "failing"].includes(before);
    if (before !== condition.level && trouble) news.push(`Route ${name}: ${condition.why}`);
    if (was && !trouble) news.push(`Route ${name} is fine again.`);
    page.conditions.set(name, condition.level);
  }
  const before = page.conditions.get("");
  if (before && before !== report.state) news.push(`The proxy is ${report.state}.`);
  page.conditions.set("", report.state);
  if (news.length) say(byId("announcer"), news.join(" "));
}

setInterval(() => {
  if (page.report && !document.hidden) {
    showTokens(page.report.routes, proxyTime());
    showFailures(page.report.failures, proxyTime());
  }
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
poll();

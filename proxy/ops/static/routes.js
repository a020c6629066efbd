// The routes: one row in the table, and one card with everything that is known.

import { byId, keep, make, mark, prose, say } from "./dom.js";
import * as format from "./format.js";
import { graph, pointsOf } from "./graphs.js";

const CONDITIONS = { ok: "OK", idle: "Idle", warning: "Attention", failing: "Failing" };
const TOKENS = {
  none: "Not fetched yet",
  fetching: "Being fetched",
  good: "Valid",
  refreshing: "Valid, being refreshed",
  backing_off: "Not available",
};
// With more routes than this the cards start closed: the table says which one to open.
const OPEN_CARDS = 4;
// The lifetime of a token from Google's metadata server, for the length of the bar.
const LIFETIME = 3600;

/** Return the routes with those in trouble first, the worst before the others. */
function worstFirst(routes) {
  const rank = ({ condition }) => ({ failing: 0, warning: 1 })[condition.level] ?? 2;
  return [...routes].sort((one, other) => rank(one) - rank(other));
}

/** Show the routes of a report; `now` is the proxy's own clock. */
export function showRoutes(report, now) {
  const routes = worstFirst(report.routes);
  const unmatched = report.unmatched ? [unmatchedRow(report.unmatched)] : [];
  keep(byId("rows"), [...routes, ...unmatched], (route) => route.name, makeRow, updateRow);
  const open = routes.length <= OPEN_CARDS;
  keep(byId("cards"), routes, (route) => route.name, (route) => makeCard(route, open),
    (card, route) => card.update(route));
  showTokens(routes, now);
}

/** Draw the graphs from a report that has the points. */
export function showGraphs(report) {
  for (const card of byId("cards").children) {
    const route = report.routes.find((one) => one.name === card.dataset.key);
    if (route) card.draw(pointsOf(route.history, report.history), report.time);
  }
}

/** Let the tokens' time run; called every second. */
export function showTokens(routes, now) {
  for (const card of byId("cards").children) {
    const route = routes.find((one) => one.name === card.dataset.key);
    if (route?.token) card.tick(route.token, now);
  }
  for (const row of byId("rows").children) {
    const route = routes.find((one) => one.name === row.dataset.key);
    say(row.cells[7], route ? tokenInShort(route.token, now) : "–");
  }
}

const anchor = (name) => `route-${encodeURIComponent(name)}`;

function unmatchedRow(traffic) {
  const why = "Requests that no route matched.";
  return { ...traffic, name: "", token: null, condition: { level: "idle", why } };
}

function makeRow(route) {
  const name = route.name
    ? make("a", { href: `#${anchor(route.name)}` }, route.name)
    : make("span", { class: "quiet" }, "unmatched");
  name.addEventListener("click", () => {
    const card = byId(anchor(route.name));
    if (card) card.open = true;
  });
  return make(
    "tr", {},
    make("th", { scope: "row" }, name),
    make("td", {}, make("span", { class: "pill" })),
    ...["number", "number", "number wide", "number wide", "number wide", "wide"].map((kind) =>
      make("td", { class: kind })),
  );
}

function updateRow(row, route) {
  const { recent } = route;
  const [, condition, requests, failed, p50, p99, inFlight] = row.cells;
  showCondition(condition.firstChild, route);
  say(requests, `${format.rate(recent.requests / recent.seconds)}/s`);
  say(failed, format.share(recent.server_errors, recent.requests));
  mark(failed, "data-bad", recent.server_errors > 0);
  say(p50, format.latency(recent.percentiles.p50));
  say(p99, format.latency(recent.percentiles.p99));
  say(inFlight, format.count(route.in_flight));
}

function showCondition(pill, route) {
  say(pill, route.name ? CONDITIONS[route.condition.level] : "No route");
  mark(pill, "data-level", route.condition.level);
  mark(pill, "title", route.condition.why);
}

function tokenInShort(token, now) {
  if (!token) return "not used";
  return token.expires_at === null
    ? TOKENS[token.state] ?? token.state
    : `${format.countdown(token.expires_at - now)} left`;
}

function makeCard(route, open) {
  const pill = make("span", { class: "pill" });
  const why = make("p", { class: "why" });
  const facts = make("dl", { class: "pairs" });
  const traffic = graph("traffic");
  const latency = graph("latency");
  const pool = makePool();
  const token = makeToken();
  const counts = make("dl", { class: "pairs" });
  const destinations = makeDestinations();
  const card = make(
    "details", { class: "card panel", id: anchor(route.name), open: open ? "" : null },
    make("summary", {},
      make("h3", {}, route.name), pill, make("span", { class: "where" }, "→ ", route.upstream)),
    make("div", { class: "card-body" },
      why,
      destinations,
      make("div", { class: "graphs" }, traffic, latency),
      make("div", { class: "columns" },
        make("div", {},
          make("h4", {}, "Token"), token, make("h4", {}, "Connections to the upstream"), pool),
        make("div", {}, make("h4", {}, "Since the start"), counts),
        make("div", {}, make("h4", {}, "Configuration"), facts))),
  );
  card.update = (latest) => {
    showCondition(pill, latest);
    say(why, latest.condition.why);
    mark(why, "data-level", latest.condition.level);
    say(card.querySelector(".where"), `→ ${latest.upstream}`);
    pairs(facts, configuration(latest));
    pairs(counts, totals(latest));
    destinations.update(latest.destinations);
    pool.update(latest.connections);
    token.update(latest);
  };
  card.draw = (points, now) => {
    traffic.update(points, now);
    latency.update(points, now);
  };
  card.tick = token.tick;
  return card;
}

/** Fill a list of terms; a pair without a value is left out. */
function pairs(list, entries) {
  const known = entries.filter(([, value]) => value !== null && value !== "");
  keep(list, known, ([term]) => term,
    ([term]) => make("div", {}, make("dt", {}, term), make("dd")),
    (pair, [, value]) => say(pair.lastChild, value));
}

function configuration(route) {
  const authenticated = route.auth !== "none";
  return [
    ["Matches", route.matches + (route.strip_path ? " (prefix removed)" : "")],
    ["Listens on", route.listen.join(", ")],
    ["Upstream", route.upstream],
    ["Dialled at", route.connect_to],
    ["Egress proxy", route.egress_proxy],
    ["Audience", route.auth === "id_token" ? route.audience ?? "unresolved" : null],
    ["Scopes", route.scopes?.join(" ") ?? null],
    ["Authentication", authenticated ? `${tokenKind(route)} in ${route.header}` : "none"],
    ["Credentials", authenticated ? route.credentials : null],
    ["Protocol", route.protocol === "auto" ? "as the caller" : route.protocol],
  ];
}

/** The destinations of a route that has several, in the order of preference. */
function makeDestinations() {
  const list = make("ol", { class: "destinations", "aria-label": "Destinations, in order of preference" });
  list.update = (destinations) => {
    list.hidden = destinations.length === 0;
    keep(list, destinations, (each) => each.name,
      (each) => make("li", {}, make("span", { class: "pill" }), make("span", {}, each.name),
        make("span", { class: "quiet" })),
      (item, each) => {
        const [pill, , more] = item.children;
        say(pill, each.available ? "Available" : "Set aside");
        mark(pill, "data-level", each.available ? "ok" : "warning");
        const { busy, idle } = each.connections;
        const token = each.token ? `token: ${(TOKENS[each.token.state] ?? each.token.state).toLowerCase()}` : "";
        say(more, [`${busy} busy, ${idle} idle`, token].filter(Boolean).join("; "));
      });
  };
  return list;
}

function tokenKind(route) {
  return route.auth === "access_token" ? "access token" : "ID token";
}

function totals(route) {
  // Non-breaking spaces: a word and its number stay together.
  const list = (counts) =>
    Object.entries(counts).map(([word, number]) => `${word}\u00a0×\u00a0${format.count(number)}`)
      .join(", ");
  return [
    ["Exchanges", format.count(route.requests)],
    ["Answered", list(route.codes)],
    ["Protocols", list(route.protocols)],
    ["Errors", list(route.errors)],
    ["Retries", list(route.retries)],
    ["Dials", list(route.dials)],
    ["Bodies", `${format.bytes(route.request_bytes)} in, ${format.bytes(route.response_bytes)} out`],
  ];
}

function makePool() {
  const parts = ["busy", "dialling", "idle"].map((state) =>
    [state, make("span", { class: `part ${state}` })]);
  const words = make("p", { class: "words" });
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, ...parts.map(([, part]) => part));
  const pool = make("div", { class: "pool" }, bar, words);
  pool.update = (connections) => {
    const { busy, dialling, idle, waiting, limit } = connections;
    // Without a nearby limit the bar shows how the open connections are used.
    const whole = Math.max(busy + dialling + idle, Math.min(limit ?? 0, 20), 1);
    for (const [state, part] of parts) part.style.width = `${(100 * connections[state]) / whole}%`;
    const parts_ = [`${busy} busy`, `${idle} idle`];
    if (dialling) parts_.push(`${dialling} being dialled`);
    if (waiting) parts_.push(`${waiting} exchanges waiting`);
    say(words, `${parts_.join(", ")}${limit ? ` (limit ${format.count(limit)})` : ""}`);
  };
  return pool;
}

function makeToken() {
  const state = make("span", { class: "token-state" });
  const left = make("span", { class: "left" });
  const time = make("span", { class: "part" });
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, time);
  const more = make("dl", { class: "pairs" });
  const error = make("p", { class: "why" });
  const hint = make("p", { class: "hint" });
  const box = make("div", { class: "token" },
    make("p", { class: "words" }, state, left), bar, error, hint, more);
  box.update = (route) => {
    const { token } = route;
    const used = token !== null;
    say(state, used ? TOKENS[token.state] ?? token.state : "This route sends none.");
    mark(box, "data-level", !used ? "idle" : token.error ? (token.expires_at ? "warning" : "failing") : "ok");
    bar.hidden = !used;
    if (!used) say(left, "");
    say(error, used && token.error ? `Last fetch failed: ${token.error}` : "");
    mark(error, "data-level", used && token.expires_at ? "warning" : "failing");
    prose(hint, used && token.error ? token.hint : "");
    pairs(more, used ? [["Account", token.account], ["From", token.source]] : []);
  };
  box.tick = (token, now) => {
    const seconds = token.expires_at === null ? 0 : token.expires_at - now;
    say(left, token.expires_at === null ? "" : `expires in ${format.countdown(seconds)}`);
    time.style.width = `${100 * Math.min(1, Math.max(0, seconds / LIFETIME))}%`;
  };
  return box;
}

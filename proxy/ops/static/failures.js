// The last errors, one for each route and reason, each with what can be done about it.

import { byId, keep, make, prose, say } from "./dom.js";
import * as format from "./format.js";

/** Show the failures of a report; `now` is the proxy's own clock. */
export function showFailures(failures, now) {
  keep(byId("failures"), failures, (failure) => `${failure.route} ${failure.reason}`, makeItem,
    (item, failure) => item.update(failure, now));
  byId("no-failures").hidden = failures.length > 0;
}

function makeItem(failure) {
  const code = make("span", { class: "code" });
  const when = make("span", { class: "when" });
  const detail = make("p", { class: "detail" });
  const hint = make("p", { class: "hint" });
  const item = make(
    "li", { class: "panel" },
    make("div", { class: "failure-head" },
      make("h3", {}, failure.title), code,
      make("span", { class: "quiet" }, failure.route ? `route ${failure.route}` : "no route"), when),
    detail, hint,
  );
  item.update = (latest, now) => {
    const ago = `${format.stretch(now - latest.at)} ago`;
    say(code, `${latest.status} ${latest.reason}`);
    say(when, latest.times > 1 ? `${format.count(latest.times)} times, last ${ago}` : ago);
    prose(detail, latest.detail);
    prose(hint, latest.hint);
  };
  return item;
}

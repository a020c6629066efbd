// HTTP/1.1 callers of the Node world: undici, node:http, EventSource, fetch.
//
//   node http_client.mjs URL SCENARIO [JSON]
import { createHash } from "node:crypto";
import http from "node:http";
import { EventSource } from "eventsource";
import { Client, request } from "undici";
import { report } from "./peer.mjs";

const [url, scenario, given] = process.argv.slice(2);
const input = given === undefined ? {} : JSON.parse(given);
const at = (path) => new URL(path ?? "/", url);

async function whole(response) {
  const hash = createHash("sha256");
  let bytes = 0;
  let text = "";
  for await (const chunk of response.body) {
    hash.update(chunk);
    bytes += chunk.length;
    if (bytes < 100_000) text += chunk;
  }
  return {
    status: response.statusCode,
    headers: response.headers,
    trailers: response.trailers,
    bytes,
    sha256: hash.digest("hex"),
    text,
  };
}

// Pieces of a body, each sent only when the service has received those before.
async function* stepwise(pieces) {
  let sent = 0;
  for (let n = 0; n < pieces; n += 1) {
    const piece = Buffer.from(`piece ${n}\n`);
    yield piece;
    sent += piece.length;
    await (await request(at(`/seen?bytes=${sent}`))).body.dump();
  }
}

const step = () => request(at("/step"), { method: "POST" }).then(({ body }) => body.dump());

const scenarios = {
  async request() {
    const { path, method = "GET", headers = {}, body } = input;
    return whole(await request(at(path), { method, headers, body }));
  },

  // A body of unknown length, sent piece by piece: chunked.
  async upload() {
    const body = stepwise(input.pieces ?? 3);
    return whole(await request(at(input.path), { method: "POST", body }));
  },

  // Several requests on one connection before the first answer.
  async pipeline() {
    const client = new Client(at("/").origin, { pipelining: input.count });
    const paths = Array.from({ length: input.count }, (_, n) => `/echo/${n}`);
    const answers = await Promise.all(paths.map((path) => client.request({ path, method: "GET" }).then(whole)));
    await client.close();
    return answers.map((answer) => JSON.parse(answer.text).url);
  },

  // The order in which 100, 103 and the answer come.
  expect_continue: () =>
    new Promise((resolve, reject) => {
      const events = [];
      const headers = { Expect: "100-continue", "Content-Length": 4 };
      const sending = http.request(at(input.path), { method: "POST", headers });
      sending.on("continue", () => {
        events.push("100");
        sending.end("body");
      });
      sending.on("information", ({ statusCode }) => statusCode === 100 || events.push(String(statusCode)));
      sending.on("response", (response) => {
        events.push(String(response.statusCode));
        response.resume().on("end", () => resolve(events));
      });
      sending.on("error", reject);
      sending.flushHeaders();
    }),

  informational: () =>
    new Promise((resolve, reject) => {
      const events = [];
      const sending = http.get(at(input.path ?? "/informational"));
      sending.on("information", ({ statusCode, headers }) => events.push([statusCode, headers.link]));
      sending.on("response", (response) => {
        events.push([response.statusCode]);
        response.resume().on("end", () => resolve(events));
      });
      sending.on("error", reject);
    }),

  // Each event is answered by a step; EventSource connects again when the stream ends.
  events: () =>
    new Promise((resolve, reject) => {
      const source = new EventSource(at(input.path ?? "/events"));
      const events = [];
      let opened = 0;
      // Between two connections nothing else would keep the process.
      setInterval(() => {}, 1000);
      source.onopen = () => (opened += 1);
      source.onmessage = ({ data, lastEventId }) => {
        events.push({ data, lastEventId });
        step();
        if (events.length < (input.take ?? 3)) return;
        source.close();
        resolve({ events, opened });
      };
      source.onerror = ({ code, message }) => {
        if (source.readyState === source.CLOSED) reject(new Error(`${code} ${message}`));
      };
    }),

  // The caller reads a little, then goes away.
  async give_up() {
    const abort = new AbortController();
    const response = await fetch(at(input.path ?? "/endless"), { signal: abort.signal });
    const { value } = await response.body.getReader().read();
    abort.abort();
    return value.length > 0;
  },

  // fetch, as apps use it: it decompresses by itself and follows redirects.
  async fetch() {
    const response = await fetch(at(input.path), { redirect: "manual" });
    return { status: response.status, text: await response.text(), location: response.headers.get("location") };
  },
};

await report(scenarios[scenario], (error) => ({ name: error.name, message: error.message, code: error.cause?.code ?? error.code }));
process.exit(0);

// An HTTP/1.1 service on Node's own server, with the less usual things that the protocol allows.
//
//   node http_server.mjs
//
// What a path does stands in `paths`; every other path answers with what arrived, as JSON.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { gzipSync } from "node:zlib";
import { Counter, listen } from "./peer.mjs";

// Waits until the response can take more; false if its reader has gone.
const written = (response, chunk) =>
  new Promise((resolve) => {
    const gone = () => resolve(false);
    response.once("close", gone);
    response.write(chunk, (error) => {
      response.off("close", gone);
      resolve(!error);
    });
  });

// What happened so far; `GET /seen` tells, with `?cut=1` as soon as that many have happened.
const seen = {
  cut: new Counter(), // exchanges whose caller went away
  continued: new Counter(), // requests with Expect: 100-continue
  bytes: new Counter(), // of request bodies
  steps: new Counter(), // POST /step
};

async function arrived(request) {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of request) {
    hash.update(chunk);
    bytes += chunk.length;
    seen.bytes.add(chunk.length);
  }
  return {
    method: request.method,
    url: request.url,
    version: request.httpVersion,
    headers: request.rawHeaders,
    bytes,
    sha256: hash.digest("hex"),
    trailers: request.rawTrailers,
  };
}

const paths = {
  async "/seen"(_request, response, query) {
    for (const [name, value] of query) await seen[name].reaches(Number(value));
    json(response, Object.fromEntries(Object.entries(seen).map(([name, { value }]) => [name, value])));
  },

  async "/step"(_request, response) {
    seen.steps.add();
    response.end();
  },

  async "/informational"(_request, response) {
    await new Promise((resolve) => response.writeEarlyHints({ link: "</style.css>; rel=preload" }, resolve));
    response.end("after 103");
  },

  async "/trailers"(_request, response) {
    response.writeHead(200, { Trailer: "X-Checksum" });
    response.write("body");
    response.addTrailers({ "X-Checksum": "abc" });
    response.end();
  },

  async "/cookies"(_request, response) {
    response.writeHead(200, [["Set-Cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT"], ["Set-Cookie", "b=2"]].flat());
    response.end();
  },

  async "/gzip"(_request, response) {
    const body = gzipSync("compressed ".repeat(100));
    response.writeHead(200, { "Content-Encoding": "gzip", "Content-Length": body.length });
    response.end(body);
  },

  async "/redirect"(_request, response) {
    response.writeHead(302, { Location: "/elsewhere?x=%2F" }).end();
  },

  async "/status"(_request, response, query) {
    response.writeHead(Number(query.get("code"))).end();
  },

  // Events, numbered on from Last-Event-ID; after `count` of them the stream ends.  Each comes
  // only when so many steps were taken as there were events: who keeps one back in order to send
  // it with the next one waits for ever.
  async "/events"(request, response, query) {
    const first = Number(request.headers["last-event-id"] ?? 0) + 1;
    const end = first + Number(query.get("count") ?? Infinity);
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
    for (let n = first; n < end; n += 1) {
      if (!(await written(response, `retry: 20\nid: ${n}\ndata: ${n}\n\n`))) {
        seen.cut.add();
        return;
      }
      await seen.steps.reaches(n);
    }
    response.end();
  },

  // A body without end, as fast as it is read.
  async "/endless"(_request, response) {
    const block = Buffer.alloc(64 * 1024, "x");
    while (await written(response, block));
    seen.cut.add();
  },

  // The connection breaks in the middle of a body that promised more.
  async "/broken"(_request, response) {
    response.writeHead(200, { "Content-Length": 1000 });
    await written(response, "half");
    response.socket.destroy();
  },

  // The answer comes while the request is still being sent, and nobody reads on.
  async "/early"(_request, response) {
    response.writeHead(413, { Connection: "close" }).end("too much");
  },
};

function json(response, value) {
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify(value));
}

async function serve(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  const handle = paths[pathname] ?? (async () => json(response, await arrived(request)));
  try {
    await handle(request, response, searchParams);
  } catch (error) {
    // The caller went away while its body was read.
    if (error.code === "ECONNRESET") seen.cut.add();
    else throw error;
  }
}

const server = createServer({ maxHeaderSize: 128 * 1024, keepAliveTimeout: 60_000 }, serve);
server.on("checkContinue", (request, response) => {
  seen.continued.add();
  if (request.url === "/refuse") {
    response.writeHead(417, { Connection: "close" }).end();
    return;
  }
  response.writeContinue();
  serve(request, response);
});
listen(server);

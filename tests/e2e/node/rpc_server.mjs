// A service in gRPC, gRPC-Web and Connect on Node's HTTP/2 server: over h2c, or over TLS with HTTP/1.1 beside it.
//
//   node rpc_server.mjs [CERTIFICATE KEY] [--only-http1]
import { readFileSync } from "node:fs";
import { createServer as createHttp1 } from "node:http";
import { createSecureServer, createServer } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { listen } from "./peer.mjs";
import { Peer } from "./rpc_service.mjs";

const words = process.argv.slice(2);
const [cert, key] = words.filter((word) => !word.startsWith("--"));
// What became of calls that were given up, and how the last call came; `Seen` tells.
const seen = { aborted: 0, version: "", token: "" };

// What a call brought comes back: `x-echo` in the head, `x-late` and a binary field in the trailers.
function note(context) {
  const { requestHeader, responseHeader, responseTrailer } = context;
  seen.token = requestHeader.get("x-serverless-authorization")?.slice(0, 9);
  responseHeader.set("x-echo", requestHeader.get("x-echo") ?? "");
  responseTrailer.set("x-late", "behind");
  responseTrailer.set("x-late-bin", requestHeader.get("x-ask-bin") ?? "");
}

const routes = (router) =>
  router.service(Peer, {
    async unary({ value }, context) {
      note(context);
      return { value: value.startsWith("size:") ? "x".repeat(Number(value.slice(5))) : value };
    },
    async *down({ value }, context) {
      note(context);
      for (let n = 1; n <= Number(value); n += 1) yield { value: `${n}` };
    },
    async up(texts, context) {
      note(context);
      const all = [];
      for await (const { value } of texts) all.push(value);
      return { value: all.join() };
    },
    async *both(texts, context) {
      note(context);
      for await (const { value } of texts) yield { value: value.toUpperCase() };
    },
    async fail({ value }, context) {
      note(context);
      throw new ConnectError(`failed ${value}`, Code.FailedPrecondition, { "x-why": "because" });
    },
    async hang(_, context) {
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
      seen.aborted += 1;
      // Whichever end sees the deadline first, it is the deadline.
      throw ConnectError.from(context.signal.reason, Code.Canceled);
    },
    async seen() {
      return { value: JSON.stringify(seen) };
    },
  });

const adapter = connectNodeAdapter({ routes });
function serve(request, response) {
  if (!request.url.endsWith("/Seen")) seen.version = request.httpVersion;
  adapter(request, response);
}
const tls = cert && { cert: readFileSync(cert), key: readFileSync(key), allowHTTP1: true };
if (words.includes("--only-http1")) listen(createHttp1(serve));
else listen(tls ? createSecureServer(tls, serve) : createServer({ settings: { maxConcurrentStreams: 100 } }, serve));

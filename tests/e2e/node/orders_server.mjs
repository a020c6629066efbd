// The private service that the snippets of docs/clients call: REST, tRPC and Connect over HTTP/1.1, or gRPC
// over h2c.
//
//   node orders_server.mjs [--grpc]
import { createServer } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Code, ConnectError } from "@connectrpc/connect";
import { initTRPC } from "@trpc/server";
import { nodeHTTPRequestHandler } from "@trpc/server/adapters/node-http";
import { z } from "zod";
import { OrderService } from "./orders_pb.js";
import { listen } from "./peer.mjs";

const isGrpc = process.argv.includes("--grpc");
const order = (id) => ({ id, status: "paid" });

const t = initTRPC.create();
const router = t.router({ order: t.procedure.input(z.number()).query(({ input }) => order(input)) });

const connect = connectNodeAdapter({
  fallback: (_, response) => response.writeHead(404).end(),
  routes: (routes) =>
    routes.service(OrderService, {
      getOrder({ id }, { requestHeader }) {
        // Over HTTP/1.1 Google's front end, emulated before this service, has judged the token.
        if (isGrpc && !requestHeader.get("x-serverless-authorization")?.startsWith("Bearer ey")) {
          throw new ConnectError("no token", Code.Unauthenticated);
        }
        return order(id);
      },
    }),
});

async function serve(request, response) {
  const [, first, rest] = request.url.split("/");
  if (first === "trpc") {
    nodeHTTPRequestHandler({ router, path: rest.split("?")[0], req: request, res: response, createContext: () => ({}) });
  } else if (first === "orders") {
    let body = "";
    for await (const part of request) body += part;
    const answer = request.method === "POST" ? { ...JSON.parse(body), id: 43 } : order(Number(rest));
    response.writeHead(request.method === "POST" ? 201 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer));
  } else {
    connect(request, response);
  }
}

listen(isGrpc ? createHttp2(connect) : createServer(serve));

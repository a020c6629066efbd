// A tRPC service as people write them: queries, mutations, streams, subscriptions over SSE and WebSocket.
//
//   node trpc_server.mjs [--superjson]
//
// It serves below /trpc on a port that it prints.
import { EventEmitter, once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { createServer } from "node:http";
import { initTRPC, tracked, TRPCError } from "@trpc/server";
import { createHTTPHandler } from "@trpc/server/adapters/standalone";
import { applyWSSHandler } from "@trpc/server/adapters/ws";
import { octetInputParser } from "@trpc/server/http";
import superjson from "superjson";
import { WebSocketServer } from "ws";
import { z } from "zod";
import { listen } from "./peer.mjs";

const t = initTRPC.context().create({
  transformer: process.argv.includes("--superjson") ? superjson : undefined,
  sse: { ping: { enabled: true, intervalMs: 200 }, client: { reconnectAfterInactivityMs: 2000 } },
  jsonl: { pingMs: 200 },
});

// Facts that a later query can ask for: how calls ended that nobody waits for any more.
const seen = { hanging: 0, aborted: 0 };
const news = new EventEmitter();

async function untilAborted(signal) {
  seen.hanging += 1;
  try {
    await sleep(60_000, undefined, { signal });
  } catch {
    seen.aborted += 1;
    news.emit("aborted");
    throw new TRPCError({ code: "CLIENT_CLOSED_REQUEST" });
  }
}

const appRouter = t.router({
  greet: t.procedure.input(z.object({ name: z.string() })).query(({ input }) => `Hello, ${input.name}!`),

  // The request as it arrived: names and values in the order and spelling of the wire.
  request: t.procedure.query(({ ctx }) => ({ method: ctx.req.method, url: ctx.req.url, headers: ctx.req.rawHeaders })),

  add: t.procedure.input(z.object({ a: z.number(), b: z.number() })).mutation(({ input }) => input.a + input.b),

  echo: t.procedure.input(z.any()).mutation(({ input }) => input),

  bytes: t.procedure.input(octetInputParser).mutation(async ({ input }) => {
    let bytes = 0;
    for await (const chunk of input) bytes += chunk.byteLength;
    return bytes;
  }),

  form: t.procedure.input(z.instanceof(FormData)).mutation(async ({ input }) => {
    const file = input.get("file");
    return { title: input.get("title"), name: file.name, size: file.size };
  }),

  fail: t.procedure.input(z.object({ code: z.string(), message: z.string() })).query(({ input }) => {
    throw new TRPCError(input);
  }),

  // A query whose answer comes in pieces (httpBatchStreamLink).
  countdown: t.procedure
    .input(z.object({ from: z.number(), every: z.number() }))
    .query(async function* ({ input, signal }) {
      for (let n = input.from; n > 0; n -= 1) {
        yield n;
        await sleep(input.every, undefined, { signal });
      }
    }),

  // Numbered events, without an end unless one is asked for; resumes after the last id that arrived.
  ticks: t.procedure
    .input(z.object({ every: z.number(), until: z.number().optional(), lastEventId: z.coerce.number().optional() }))
    .subscription(async function* ({ input, signal }) {
      for (let n = (input.lastEventId ?? 0) + 1; n <= (input.until ?? Infinity); n += 1) {
        if (signal.aborted) return;
        yield tracked(String(n), { n });
        await sleep(input.every, undefined, { signal }).catch(() => {});
      }
    }),

  hang: t.procedure.query(({ signal }) => untilAborted(signal)),
  seen: t.procedure.query(() => seen),
  // The same, as soon as a call has been aborted.
  seenAborted: t.procedure.query(async () => {
    if (seen.aborted === 0) await once(news, "aborted", { signal: AbortSignal.timeout(5_000) });
    return seen;
  }),
});

const createContext = ({ req }) => ({ req });
const server = createServer(
  // A batch of queries is one long URL; Node's own limit for a head is 16 KiB.
  { maxHeaderSize: 64 * 1024 },
  createHTTPHandler({ router: appRouter, createContext, basePath: "/trpc/", allowMethodOverride: true }),
);
applyWSSHandler({ wss: new WebSocketServer({ server }), router: appRouter, createContext });
listen(server);

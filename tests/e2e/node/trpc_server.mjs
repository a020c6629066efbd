// A tRPC service as people write them: queries, mutations, streams, subscriptions over SSE and WebSocket.
//
//   node trpc_server.mjs [--superjson]
//
// It serves below /trpc on a port that it prints.
import { setTimeout as sleep } from "node:timers/promises";
import { createServer } from "node:http";
import { initTRPC, tracked, TRPCError } from "@trpc/server";
import { createHTTPHandler } from "@trpc/server/adapters/standalone";
import { applyWSSHandler } from "@trpc/server/adapters/ws";
import { octetInputParser } from "@trpc/server/http";
import superjson from "superjson";
import { WebSocketServer } from "ws";
import { z } from "zod";
import { Counter, listen } from "./peer.mjs";

const t = initTRPC.context().create({
  transformer: process.argv.includes("--superjson") ? superjson : undefined,
  sse: { ping: { enabled: true, intervalMs: 200 }, client: { reconnectAfterInactivityMs: 2000 } },
  jsonl: { pingMs: 200 },
});

// Facts that a later query can ask for: how calls ended that nobody waits for any more.
const hanging = new Counter();
const aborted = new Counter();

// How often the caller has said `step`: a stepwise stream sends its next piece only then.  So
// who keeps a piece back, in order to send it with the next one, waits for ever.
const steps = new Counter();

async function untilAborted(signal) {
  hanging.add();
  try {
    await sleep(60_000, undefined, { signal });
  } catch {
    aborted.add();
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
    .input(z.object({ from: z.number(), every: z.number().optional() }))
    .query(async function* ({ input, signal }) {
      for (let n = input.from; n > 0; n -= 1) {
        yield n;
        await (input.every ? sleep(input.every, undefined, { signal }) : steps.reaches(input.from - n + 1));
      }
    }),

  step: t.procedure.mutation(() => steps.add()),

  // Numbered events, without an end unless one is asked for; resumes after the last id that arrived.
  ticks: t.procedure
    .input(z.object({ every: z.number().optional(), until: z.number().optional(), lastEventId: z.coerce.number().optional() }))
    .subscription(async function* ({ input, signal }) {
      for (let n = (input.lastEventId ?? 0) + 1; n <= (input.until ?? Infinity); n += 1) {
        if (signal.aborted) return;
        yield tracked(String(n), { n });
        if (input.every) await sleep(input.every, undefined, { signal }).catch(() => {});
        else await steps.reaches(n);
      }
    }),

  hang: t.procedure.query(({ signal }) => untilAborted(signal)),
  // Answer as soon as a call hangs, and as soon as one was aborted.
  untilHanging: t.procedure.query(() => hanging.reaches(1)),
  untilAborted: t.procedure.query(async () => {
    await aborted.reaches(1);
    return { hanging: hanging.value, aborted: aborted.value };
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

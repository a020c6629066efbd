// A tRPC caller: performs one scenario against a base URL and prints its outcome as one line of JSON.
//
//   node trpc_client.mjs URL SCENARIO [JSON] [--superjson]
//
// URL is what an app would write, such as http://localhost:8081/trpc.
import {
  createTRPCClient,
  createWSClient,
  httpBatchLink,
  httpBatchStreamLink,
  httpLink,
  httpSubscriptionLink,
  isNonJsonSerializable,
  splitLink,
  wsLink,
} from "@trpc/client";
import { EventSource } from "eventsource";
import superjson from "superjson";
import { WebSocket } from "ws";
import { report } from "./peer.mjs";

const words = process.argv.slice(2);
const [url, scenario, given] = words.filter((word) => !word.startsWith("--"));
const input = given === undefined ? {} : JSON.parse(given);
const transformer = words.includes("--superjson") ? superjson : undefined;
const client = (...links) => createTRPCClient({ links });

const single = () => client(httpLink({ url, transformer }));
const batch = (more = {}) => client(httpBatchLink({ url, transformer, ...more }));
const stream = () => client(httpBatchStreamLink({ url, transformer }));
const uploads = () =>
  client(
    splitLink({
      condition: (op) => isNonJsonSerializable(op.input),
      true: httpLink({ url, transformer }),
      false: httpBatchLink({ url, transformer }),
    }),
  );

// Collects the events of a subscription until it completes, fails, or has brought `take` of them.
// Without `every` the service sends each one only when it has heard that the last one arrived.
function collect(procedure, { take, ...rest }) {
  return new Promise((resolve, reject) => {
    const events = [];
    let connections = 0;
    const subscription = procedure.subscribe(rest, {
      onData(event) {
        events.push(event);
        if (!rest.every) single().step.mutate();
        if (events.length !== take) return;
        subscription.unsubscribe();
        resolve({ events, connections, ended: false });
      },
      onConnectionStateChange(state) {
        if (state.state === "pending") connections += 1;
      },
      onError: reject,
      onComplete: () => resolve({ events, connections, ended: true }),
    });
  });
}

async function overWebSocket(use) {
  const wsClient = createWSClient({ url: url.replace(/^http/, "ws"), WebSocket, retryDelayMs: () => 50 });
  try {
    return await use(client(wsLink({ client: wsClient, transformer })));
  } finally {
    await wsClient.close();
  }
}

const scenarios = {
  query: () => single().greet.query({ name: input.name ?? "world" }),
  mutation: () => single().add.mutate({ a: 2, b: 3 }),
  request: () => batch().request.query(),
  echo: () => batch().echo.mutate(input.value),
  until_aborted: () => single().untilAborted.query(),
  fail: () => single().fail.query(input),
  fail_in_batch: () => batch().fail.query(input),

  // Calls made in one tick travel as one GET; mutations as one POST beside it.
  async batch() {
    const trpc = batch();
    const names = Array.from({ length: input.calls ?? 3 }, (_, n) => `caller ${n} with ' and % and ü`);
    return Promise.all([...names.map((name) => trpc.greet.query({ name })), trpc.add.mutate({ a: 20, b: 22 })]);
  },

  // Each call has its own outcome, also where the batch as a whole is a 207.
  async mixed_batch() {
    const trpc = batch();
    const outcomes = await Promise.allSettled([
      trpc.greet.query({ name: "world" }),
      trpc.fail.query({ code: "CONFLICT", message: "taken" }),
    ]);
    return outcomes.map(({ status, value, reason }) => value ?? { status, ...describe(reason) });
  },

  batch_as_post: () => batch({ methodOverride: "POST" }).greet.query({ name: "x".repeat(input.length ?? 10) }),

  async stream() {
    const pieces = [];
    for await (const n of await stream().countdown.query({ from: 3 })) {
      pieces.push(n);
      await single().step.mutate();
    }
    return pieces;
  },

  // The first answer of a streamed batch is there while the slow one is still to come.
  async stream_batch() {
    const trpc = stream();
    const order = [];
    const slow = trpc.countdown.query({ from: 2, every: 300 }).then(async (numbers) => {
      for await (const n of numbers) order.push(`n${n}`);
    });
    await Promise.all([slow, trpc.greet.query({ name: "fast" }).then((text) => order.push(text))]);
    return order;
  },

  subscription: () =>
    collect(client(httpSubscriptionLink({ url, EventSource, transformer })).ticks, { until: 3, ...input }),

  websocket_query: () => overWebSocket((trpc) => trpc.greet.query({ name: "socket" })),
  websocket_mutation: () => overWebSocket((trpc) => trpc.add.mutate({ a: 2, b: 3 })),
  websocket_subscription: () => overWebSocket((trpc) => collect(trpc.ticks, { until: 3, ...input })),

  bytes: () => uploads().bytes.mutate(new Blob([new Uint8Array(input.size ?? 1000)])),
  form() {
    const form = new FormData();
    form.set("title", "grüße");
    form.set("file", new File([new Uint8Array(input.size ?? 1000)], "a b.bin"));
    return uploads().form.mutate(form);
  },

  // Needs --superjson on both sides.
  async rich_values() {
    const trpc = batch();
    const value = { at: new Date(0), big: 12345678901234567890n, map: new Map([["a", 1]]), set: new Set([1]) };
    const back = await trpc.echo.mutate(value);
    return { date: back.at instanceof Date, big: back.big, map: [...back.map], set: [...back.set] };
  },

  // The call is given up by its caller; how the service saw it, `until_aborted` tells.
  async abort() {
    const abort = new AbortController();
    const call = single().hang.query(undefined, { signal: abort.signal });
    call.catch(() => {});
    await single().untilHanging.query();
    abort.abort();
    await call;
  },
};

function describe(error) {
  const response = error.meta?.response;
  return {
    name: error.name,
    message: error.message,
    code: error.data?.code,
    httpStatus: error.data?.httpStatus,
    path: error.data?.path,
    reason: response?.headers?.get("x-auth-proxy-error") ?? undefined,
    status: response?.status,
  };
}

if (!(scenario in scenarios)) {
  console.error(`no scenario ${scenario}; there are ${Object.keys(scenarios).join(", ")}`);
  process.exit(64);
}
await report(scenarios[scenario], describe);
// Pooled sockets and event sources would keep the process for seconds.
process.exit(0);

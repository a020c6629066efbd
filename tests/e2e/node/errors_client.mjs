// Callers of many languages that are told of failures: each makes one call for every reason.
//
//   node errors_client.mjs URL SCENARIO REASONS [--superjson]
//
// REASONS is a JSON array; the call for a reason goes to URL/REASON.  Prints an object: what the
// caller was told, by reason.
import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorProtoSchema,
  MethodOptions_IdempotencyLevel as Idempotency,
} from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { MessageType, ScalarType } from "@protobuf-ts/runtime";
import { ServiceType } from "@protobuf-ts/runtime-rpc";
import { TwirpFetchTransport } from "@protobuf-ts/twirp-transport";
import {
  createTRPCClient,
  httpBatchLink,
  httpBatchStreamLink,
  httpLink,
  httpSubscriptionLink,
} from "@trpc/client";
import { EventSource } from "eventsource";
import { JSONRPCClient } from "json-rpc-2.0";
import superjson from "superjson";
import { report } from "./peer.mjs";

const words = process.argv.slice(2);
const [url, scenario, reasons] = words.filter((word) => !word.startsWith("--"));
const transformer = words.includes("--superjson") ? superjson : undefined;

// --- Connect, gRPC, gRPC-Web: one service with a method of each kind.

const method = (name, more = {}) => ({ name, inputType: ".test.Text", outputType: ".test.Text", ...more });
const file = create(FileDescriptorProtoSchema, {
  name: "test.proto",
  package: "test",
  syntax: "proto3",
  messageType: [
    { name: "Text", field: [{ name: "value", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "value" }] },
  ],
  service: [
    {
      name: "Echo",
      method: [
        method("Unary"),
        method("Get", { options: { idempotencyLevel: Idempotency.NO_SIDE_EFFECTS } }),
        method("Down", { serverStreaming: true }),
        method("Up", { clientStreaming: true }),
        method("Both", { clientStreaming: true, serverStreaming: true }),
      ],
    },
  ],
});
const Echo = createFileRegistry(file, () => undefined).getService("test.Echo");

async function* texts() {
  yield { value: "a" };
}

const calls = {
  unary: (client) => client.unary({ value: "a" }),
  get: (client) => client.get({ value: "a" }),
  up: (client) => client.up(texts()),
  async down(client) {
    for await (const _ of client.down({ value: "a" }));
  },
  async both(client) {
    for await (const _ of client.both(texts()));
  },
};

// What the proxy made of a failure of its own, or of a page of Google's front end.
const mark = (fields) => fields?.get("x-auth-proxy-error") ?? fields?.get("x-auth-proxy-platform-error");

function connectError(error) {
  if (!(error instanceof ConnectError)) throw error;
  return { code: Code[error.code], message: error.rawMessage, reason: mark(error.metadata) };
}

// Returns a scenario: the call `kind` over a transport made by `transport` with `options`.
const rpc = (transport, kind, options) => (baseUrl) => ({
  call: () => calls[kind](createClient(Echo, transport({ baseUrl, ...options }))),
  told: connectError,
});

// --- tRPC

const trpcError = (error) => ({
  code: error.data?.code,
  message: error.message,
  reason: mark(error.meta?.response?.headers),
  status: error.data?.httpStatus,
});

const trpc = (link, call) => (baseUrl) => {
  const client = createTRPCClient({ links: [link({ url: `${baseUrl}/trpc`, transformer })] });
  return { call: () => call(client), told: trpcError };
};

// EventSource shows its page the status of an answer that is no stream, and nothing else of it.
const subscription = (baseUrl) => ({
  call: () =>
    new Promise((_, reject) => {
      const client = createTRPCClient({ links: [httpSubscriptionLink({ url: `${baseUrl}/trpc`, EventSource })] });
      const made = client.ticks.subscribe(undefined, {
        onError(error) {
          made.unsubscribe();
          reject(error);
        },
      });
    }),
  told: (error) => ({ message: error.message, status: error.cause?.code ?? error.data?.httpStatus ?? null }),
});

// All calls of a batch fail alike.
async function batch(client) {
  const made = [client.a.b.query({ n: 1 }), client.c.query(), client.d.query({ s: "x" })];
  const failed = await Promise.allSettled(made);
  const told = failed.map(({ reason }) => JSON.stringify(trpcError(reason)));
  if (new Set(told).size !== 1) throw new Error(`calls of a batch were told ${told.join(" and ")}`);
  throw failed[0].reason;
}

// --- Twirp

const Text = new MessageType("test.Text", [{ no: 1, name: "value", kind: "scalar", T: ScalarType.STRING }]);
const TwirpEcho = new ServiceType("test.Echo", [{ name: "Unary", options: {}, I: Text, O: Text }]);

const twirp = (sendJson) => (baseUrl) => {
  const transport = new TwirpFetchTransport({ baseUrl: `${baseUrl}/twirp`, sendJson });
  const call = async () => {
    const made = transport.unary(TwirpEcho.methods[0], { value: "a" }, transport.mergeOptions({}));
    // Each part of a call is rejected by itself.
    for (const part of [made.headers, made.status, made.trailers]) part.catch(() => {});
    await made.response;
  };
  return { call, told: (error) => ({ code: error.code, message: error.message, reason: error.meta.reason }) };
};

// --- JSON-RPC: the client finds the call that a response belongs to by its id.

const jsonrpc = (calls) => (baseUrl) => {
  let statuses = [];
  const client = new JSONRPCClient(async (request) => {
    const response = await fetch(`${baseUrl}/rpc`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
    });
    statuses.push(response.status);
    client.receive(await response.json());
  });
  const told = (error) => ({
    code: error.code,
    message: error.message,
    reason: error.data?.reason,
    status: statuses[0],
  });
  return { call: () => calls(client), told };
};

const scenarios = {
  "connect unary": rpc(createConnectTransport, "unary", { httpVersion: "1.1" }),
  "connect unary json": rpc(createConnectTransport, "unary", { httpVersion: "1.1", useBinaryFormat: false }),
  "connect get": rpc(createConnectTransport, "get", { httpVersion: "1.1", useHttpGet: true }),
  "connect down": rpc(createConnectTransport, "down", { httpVersion: "1.1" }),
  "connect down json": rpc(createConnectTransport, "down", { httpVersion: "1.1", useBinaryFormat: false }),
  "connect up": rpc(createConnectTransport, "up", { httpVersion: "1.1" }),
  "connect unary h2": rpc(createConnectTransport, "unary", { httpVersion: "2" }),
  "connect both h2": rpc(createConnectTransport, "both", { httpVersion: "2" }),
  "grpc_web unary": rpc(createGrpcWebTransport, "unary", { httpVersion: "1.1" }),
  "grpc_web down": rpc(createGrpcWebTransport, "down", { httpVersion: "1.1" }),
  "grpc_web unary h2": rpc(createGrpcWebTransport, "unary", { httpVersion: "2" }),
  "grpc unary": rpc(createGrpcTransport, "unary", {}),
  "grpc down": rpc(createGrpcTransport, "down", {}),
  "trpc query": trpc(httpLink, (client) => client.a.b.query({ n: 1 })),
  "trpc mutation": trpc(httpLink, (client) => client.a.b.mutate({ n: 1 })),
  "trpc batch": trpc(httpBatchLink, batch),
  "trpc stream": trpc(httpBatchStreamLink, batch),
  "trpc subscription": subscription,
  twirp: twirp(false),
  "twirp json": twirp(true),
  "jsonrpc call": jsonrpc((client) => client.request("sum", [1, 2])),
  "jsonrpc two calls": jsonrpc(async (client) => {
    const [first, second] = await Promise.allSettled([client.request("sum", [1]), client.request("sum", [2])]);
    if (second.status !== "rejected") throw new Error("the second call was not told");
    throw first.reason;
  }),
};

if (!(scenario in scenarios)) {
  console.error(`no scenario ${scenario}; there are ${Object.keys(scenarios).join(", ")}`);
  process.exit(64);
}
await report(async () => {
  const found = {};
  for (const reason of JSON.parse(reasons)) {
    const { call, told } = scenarios[scenario](`${url}/${reason}`);
    try {
      await call();
    } catch (error) {
      found[reason] = told(error);
      continue;
    }
    throw new Error(`the call did not fail with ${reason}`);
  }
  return found;
});
// Pooled sockets would keep the process for seconds.
process.exit(0);

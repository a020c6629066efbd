// A caller of rpc_server.mjs: performs scenarios one after the other and prints an object of their
// outcomes as one line of JSON.
//
//   node rpc_client.mjs URL CLIENT SCENARIO...
//
// For grpc-js URL may be unix:PATH, and AUTHORITY in the environment is what it names then.
// CLIENT is grpc-js, grpc, connect (over HTTP/2), connect-http1 or grpc-web.
import * as grpc from "@grpc/grpc-js";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, decodeBinaryHeader, encodeBinaryHeader } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { report } from "./peer.mjs";
import { Peer, Text } from "./rpc_service.mjs";

const [url, library, ...names] = process.argv.slice(2);
const LARGE = 3_000_000;
const binary = new Uint8Array([0, 1, 254, 255]);

// --- grpc-js, wrapped so that its calls look like Connect's.

function grpcJs() {
  const methods = Object.fromEntries(
    Peer.methods.map((method) => [
      method.localName,
      {
        path: `/${Peer.typeName}/${method.name}`,
        requestStream: method.methodKind.includes("client") || method.methodKind.includes("bidi"),
        responseStream: method.methodKind.includes("server") || method.methodKind.includes("bidi"),
        requestSerialize: (value) => Buffer.from(toBinary(Text, create(Text, value))),
        requestDeserialize: (bytes) => fromBinary(Text, bytes),
        responseSerialize: (value) => Buffer.from(toBinary(Text, value)),
        responseDeserialize: (bytes) => fromBinary(Text, bytes),
      },
    ]),
  );
  const Client = grpc.makeGenericClientConstructor(methods, Peer.typeName);
  const authority = process.env.AUTHORITY;
  const client = new Client(url.startsWith("unix:") ? url : new URL(url).host, grpc.credentials.createInsecure(), {
    ...(authority === undefined ? {} : { "grpc.default_authority": authority }),
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
  });
  const heard = (call, { onHeader, onTrailer }) => {
    call.on("metadata", (metadata) => onHeader?.(metadata));
    call.on("status", (status) => onTrailer?.(status.metadata));
  };
  const prepare = ({ headers = {}, timeoutMs } = {}) => {
    const metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(headers)) {
      metadata.set(name, name.endsWith("-bin") ? Buffer.from(binary) : value);
    }
    return [metadata, timeoutMs ? { deadline: Date.now() + timeoutMs } : {}];
  };
  const single = (name) => (value, options = {}) =>
    new Promise((resolve, reject) => {
      const call = client[name](value, ...prepare(options), (error, answer) => (error ? reject(error) : resolve(answer)));
      heard(call, options);
      options.signal?.addEventListener("abort", () => call.cancel());
    });
  const pour = async (call, texts) => {
    for await (const text of texts) call.write(text);
    call.end();
  };
  return {
    unary: single("unary"),
    fail: single("fail"),
    hang: single("hang"),
    seen: single("seen"),
    down: (value, options = {}) => {
      const call = client.down(value, ...prepare(options));
      heard(call, options);
      return call;
    },
    up: (texts, options = {}) =>
      new Promise((resolve, reject) => {
        const call = client.up(...prepare(options), (error, answer) => (error ? reject(error) : resolve(answer)));
        heard(call, options);
        pour(call, texts);
      }),
    both: (texts, options = {}) => {
      const call = client.both(...prepare(options));
      heard(call, options);
      pour(call, texts);
      return call;
    },
  };
}

const transports = {
  grpc: () => createGrpcTransport({ baseUrl: url }),
  connect: () => createConnectTransport({ baseUrl: url, httpVersion: "2" }),
  "connect-http1": () => createConnectTransport({ baseUrl: url, httpVersion: "1.1" }),
  "grpc-web": () => createGrpcWebTransport({ baseUrl: url, httpVersion: "1.1" }),
};
const client = library === "grpc-js" ? grpcJs() : createClient(Peer, transports[library]());

const field = (fields, name) => (fields?.get(name) instanceof Array ? fields.get(name)[0] : fields?.get(name)) ?? "";
const bytes = (value) => [...(typeof value === "string" ? decodeBinaryHeader(value) : value)];

// Calls with metadata, and returns what came with the answer.
async function heard(call) {
  const got = {};
  const result = await call({
    headers: { "x-echo": "early", "x-ask-bin": encodeBinaryHeader(binary) },
    onHeader: (fields) => Object.assign(got, { echo: field(fields, "x-echo") }),
    onTrailer: (fields) =>
      Object.assign(got, { late: field(fields, "x-late"), binary: bytes(field(fields, "x-late-bin")) }),
  });
  await new Promise((resolve) => setTimeout(resolve, 0));
  return { result, ...got };
}

async function* texts(...values) {
  for (const value of values) yield { value };
}

async function collected(stream) {
  const all = [];
  for await (const { value } of stream) all.push(value);
  return all;
}

// How many calls the service has seen given up.
const aborted = async () => JSON.parse((await client.seen({})).value).aborted;

// Makes a call that must fail, and waits until the service has heard of its end.
async function abandoned(call) {
  const before = await aborted();
  let failure;
  try {
    await call();
  } catch (error) {
    failure = describe(error);
  }
  while ((await aborted()) === before) await new Promise((resolve) => setTimeout(resolve, 5));
  return failure.code;
}

const scenarios = {
  unary: async () => (await client.unary({ value: "grüße ☺" })).value,
  large: async () => (await client.unary({ value: `size:${LARGE}` })).value.length,
  upload: async () => (await client.unary({ value: "y".repeat(LARGE) })).value.length,
  metadata: () => heard(async (options) => (await client.unary({ value: "a" }, options)).value),
  down: () => heard(async (options) => collected(client.down({ value: "100" }, options))),
  up: async () => (await client.up(texts("a", "b", "c"))).value,
  both: () => collected(client.both(texts("a", "b", "c"))),

  // Each message leaves when the answer to the last one is there.
  async pingPong() {
    let next;
    const turn = () => new Promise((resolve) => (next = resolve));
    async function* ask() {
      for (const value of ["a", "b", "c"]) {
        const answered = turn();
        yield { value };
        await answered;
      }
    }
    const all = [];
    for await (const { value } of client.both(ask())) {
      all.push(value);
      next();
    }
    return all;
  },

  async many() {
    const calls = Array.from({ length: 250 }, (_, n) => client.unary({ value: `${n}` }));
    return (await Promise.all(calls)).filter(({ value }, n) => value === `${n}`).length;
  },

  fail: () => client.fail({ value: "grüße ☺" }),
  deadline: () => abandoned(() => client.hang({}, { timeoutMs: 100 })),
  cancel: () =>
    abandoned(() => {
      const abort = new AbortController();
      setTimeout(() => abort.abort(), 50);
      return client.hang({}, { signal: abort.signal });
    }),
  seen: async () => JSON.parse((await client.seen({})).value),
};

// The same words for an error of each library.
function describe(error) {
  if (error instanceof ConnectError) {
    return { code: Code[error.code], message: error.rawMessage, why: error.metadata.get("x-why") };
  }
  const name = Object.entries(grpc.status).find(([, number]) => number === error.code)?.[0] ?? error.code;
  const words = `${name}`.toLowerCase().split("_");
  const code = words.map((word) => word[0].toUpperCase() + word.slice(1)).join("");
  return { code: code === "Cancelled" ? "Canceled" : code, message: error.details, why: error.metadata?.get("x-why")[0] };
}

async function performed(run) {
  try {
    return { result: await run() };
  } catch (error) {
    return { error: describe(error) };
  }
}

report(async () => {
  const outcomes = {};
  for (const name of names) outcomes[name] = await performed(scenarios[name]);
  return outcomes;
}).then(() => process.exit(0));

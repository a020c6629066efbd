// A WebSocket caller made with ws.
//
//   node ws_client.mjs URL SCENARIO [JSON]
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { WebSocket } from "ws";
import { report } from "./peer.mjs";

const [url, scenario, given] = process.argv.slice(2);
const input = given === undefined ? {} : JSON.parse(given);

async function open(protocols = []) {
  const socket = new WebSocket(url.replace(/^http/, "ws"), protocols, { maxPayload: 64 * 1024 * 1024 });
  await once(socket, "open");
  return socket;
}

async function ask(socket, message) {
  const answer = once(socket, "message");
  socket.send(message);
  return (await answer)[0];
}

const digest = (data) => createHash("sha256").update(data).digest("hex");

const scenarios = {
  async echo() {
    const socket = await open();
    return (await ask(socket, input.text ?? "grüße")).toString();
  },

  // A message that does not compress, of `size` bytes, there and back.
  async large() {
    const socket = await open();
    const message = randomBytes(input.size);
    return digest(await ask(socket, message)) === digest(message);
  },

  async negotiated() {
    const socket = await open(["echo.v9", "echo.v2", "echo.v1"]);
    return { protocol: socket.protocol, extensions: socket.extensions };
  },

  async headers() {
    const socket = await open();
    return JSON.parse(await ask(socket, "headers"));
  },

  // The service closes with the code that it is asked for.
  async closed_by_service() {
    const socket = await open();
    const closed = once(socket, "close");
    socket.send(`close ${input.code}`);
    const [code, reason] = await closed;
    return { code, reason: reason.toString() };
  },

  // The service's connection breaks without a closing handshake.
  async broken_by_service() {
    const socket = await open();
    const closed = once(socket, "close");
    socket.send("terminate");
    return (await closed)[0];
  },

  async ping() {
    const socket = await open();
    const pong = once(socket, "pong");
    socket.ping("are you there");
    return (await pong)[0].toString();
  },

  // Stays until it is told by the other end, and tells how that was.
  async stay() {
    const socket = await open();
    console.log(JSON.stringify({ open: true }));
    const [code, reason] = await once(socket, "close");
    return { code, reason: reason.toString() };
  },
};

await report(scenarios[scenario], (error) => ({ name: error.name, message: error.message }));
process.exit(0);

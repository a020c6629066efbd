// A WebSocket service: echoes, speaks one of two subprotocols, compresses, closes as it is told.
//
//   node ws_server.mjs
import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { listen } from "./peer.mjs";

const server = createServer((_request, response) => response.writeHead(426).end());
const sockets = new WebSocketServer({
  server,
  maxPayload: 64 * 1024 * 1024,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => [...offered].find((name) => ["echo.v2", "echo.v1"].includes(name)) ?? false,
});

sockets.on("connection", (socket, request) => {
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? "" : data.toString();
    if (text.startsWith("close ")) socket.close(Number(text.slice(6)), "as you wish");
    else if (text === "terminate") socket.terminate();
    else if (text === "headers") socket.send(JSON.stringify(request.rawHeaders));
    else socket.send(data, { binary: isBinary });
  });
  // What a peer that breaks off causes is its own affair.
  socket.on("error", () => {});
});
listen(server);

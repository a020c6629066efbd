// Reads streams of requests (JSON: a list of base64 strings on stdin) with Node's own HTTP server
// and prints, for each, the messages that it saw: what a real upstream makes of these bytes.
import http from 'node:http';
import net from 'node:net';
import { text } from 'node:stream/consumers';

const sockets = new Map();

function seen(request, body) {
  const messages = sockets.get(request.socket.remotePort);
  messages.push({
    method: request.method,
    target: request.url,
    body: body.toString('base64'),
    trailers: request.rawTrailers,
  });
}

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    seen(request, Buffer.concat(pieces));
    response.end();
  });
});
server.on('upgrade', (request, socket) => {
  seen(request, Buffer.alloc(0));
  socket.end();
});
server.on('clientError', (error, socket) => {
  sockets.get(socket.remotePort)?.push({ error: error.code });
  socket.destroy();
});

function parse(stream) {
  return new Promise((resolve) => {
    const socket = net.connect(server.address().port, '127.0.0.1', () => {
      const messages = [];
      sockets.set(socket.localPort, messages);
      socket.on('close', () => resolve(messages));
      socket.on('error', () => {});
      socket.resume();
      socket.end(Buffer.from(stream, 'base64'));
    });
  });
}

const streams = JSON.parse(await text(process.stdin));
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const results = [];
for (const stream of streams) results.push(await parse(stream));
server.close();
console.log(JSON.stringify(results));

// What every script here shares: how it tells its port, how it ends, how it prints a result.
import { EventEmitter, once } from "node:events";

// Listens on a free port of 127.0.0.1 and prints `{"port": N}`, the line that the test waits for.
export function listen(server) {
  server.listen(0, "127.0.0.1", () => announce(server.address().port));
}

export function announce(port) {
  console.log(JSON.stringify({ port }));
  // The test holds the other end of stdin: no test, no server.
  process.stdin.resume().on("end", () => process.exit(0));
}

// A number that grows, and a way to wait until it is large enough: at most five seconds.
export class Counter {
  #news = new EventEmitter();
  value = 0;

  add(more = 1) {
    this.value += more;
    this.#news.emit("more");
  }

  async reaches(value) {
    const signal = AbortSignal.timeout(5_000);
    while (this.value < value) await once(this.#news, "more", { signal });
  }
}

// Runs one scenario and prints `{"ok": true, "result": …}` or `{"ok": false, "error": …}`.
export async function report(run, describe = (error) => ({ name: error.name, message: error.message })) {
  let line;
  try {
    line = { ok: true, result: (await run()) ?? null };
  } catch (error) {
    line = { ok: false, error: describe(error) };
  }
  process.stdout.write(JSON.stringify(line, (_, value) => (typeof value === "bigint" ? `${value}n` : value)) + "\n");
}

/**
 * Entry: a wire between two places of the lab. It takes connections on some ports and hands their bytes on to others, both ways
 * and in order, as its state says; `PUT /STATE` on its health server changes it for all connections, old and new:
 *
 *   pass       everything passes, and what was held back arrives
 *   drop       nobody is there: connections end, new ones are refused
 *   reset      connections break, and every new one breaks at once
 *   blackhole  connections stay and are taken, and not a byte passes
 *   oneway     what is asked passes, what is answered does not
 *   slow       every piece is SLOW_MS late
 *
 * Suspended (SIGSTOP) it is a black hole, too.
 * Arguments: the port of its own health server, then pairs "from:to", all on 127.0.0.1.
 * Not here: loss of single packets, corruption.
 */
import { createServer as createHealthServer } from "node:http";
import { connect, createServer, type Server, type Socket } from "node:net";
import { LINK_STATES, type LinkState } from "./options.ts";

const HOST = "127.0.0.1";
/** Connections of one pair at a time; a lab has a few dozen. */
const CONNECTIONS_MAX = 1_000;
const SLOW_MS = 1_000;

type Direction = "asked" | "answered";

/** One direction of one connection. */
class Wire {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #direction: Direction;

  constructor(from: Socket, to: Socket, direction: Direction) {
    this.#from = from;
    this.#to = to;
    this.#direction = direction;
    from.setNoDelay(true);
    // An end of either side is the end of both; half-closed connections are passed on, broken ones break the other.
    from.on("data", (chunk: Buffer) => this.#take(chunk)).on("end", () => to.end());
    from.on("error", () => to.destroy()).once("close", () => to.destroy());
    to.on("drain", () => this.settle());
    this.settle();
  }

  /** Reads on, or not, as the state says. */
  settle(): void {
    const isHeld = state === "blackhole" || (state === "oneway" && this.#direction === "answered");
    if (isHeld || this.#to.writableNeedDrain) this.#from.pause();
    else this.#from.resume();
  }

  #take(chunk: Buffer): void {
    if (state !== "slow") {
      if (!this.#to.write(chunk)) this.#from.pause();
      return;
    }
    this.#from.pause();
    setTimeout(() => {
      this.#to.write(chunk);
      this.settle();
    }, SLOW_MS);
  }
}

let state: LinkState = "pass";
const wires = new Map<Socket, readonly Wire[]>();
const listeners: { readonly server: Server; readonly port: number }[] = [];

/** Connections that were taken by a black hole, with the port they want. */
const swallowed = new Map<Socket, number>();

function take(near: Socket, port: number): void {
  if (state === "reset") return void near.resetAndDestroy();
  if (state === "blackhole") {
    near.on("error", () => near.destroy()).once("close", () => swallowed.delete(near));
    return void swallowed.set(near, port);
  }
  const far = connect({ host: HOST, port, allowHalfOpen: true });
  wires.set(near, [new Wire(near, far, "asked"), new Wire(far, near, "answered")]);
  near.once("close", () => wires.delete(near));
}

function become(next: LinkState): void {
  state = next;
  const taken = [...swallowed];
  if (next !== "blackhole") swallowed.clear();
  for (const near of [...wires.keys(), ...taken.map(([socket]) => socket)]) {
    if (next === "reset") near.resetAndDestroy();
    if (next === "drop") near.destroy();
  }
  for (const each of [...wires.values()].flat()) each.settle();
  if (next !== "blackhole") for (const [near, port] of taken) if (!near.destroyed) take(near, port);
  for (const { server, port } of listeners) {
    if (next === "drop") server.close();
    else if (!server.listening) server.listen(port, HOST);
  }
}

const [health = "", ...pairs] = process.argv.slice(2);
for (const pair of pairs) {
  const [from, to] = pair.split(":").map(Number);
  const server = createServer({ allowHalfOpen: true }, (near) => take(near, Number(to)));
  server.maxConnections = CONNECTIONS_MAX;
  listeners.push({ server, port: Number(from) });
}
become("pass");
createHealthServer((asked, answer) => {
  const wanted = LINK_STATES.find((each) => asked.url === `/${each}`);
  if (asked.method === "PUT" && wanted !== undefined) become(wanted);
  answer.end(`${state}\n`);
}).listen(Number(health), HOST);

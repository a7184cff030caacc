/**
 * Entry: a wire between two places of the lab. It takes connections on one port and hands their bytes on to another, both ways
 * and in order. Suspended (SIGSTOP) it is a link that was cut: whoever is connected hears nothing and is told nothing, and new
 * connections are taken by the kernel and never answered; let go on (SIGCONT), what was under way arrives.
 *
 * Arguments: the port of its own health server, then pairs "from:to", all on 127.0.0.1.
 * Not here: delay, loss, corruption.
 */
import { createServer as createHealthServer } from "node:http";
import { connect, createServer, type Socket } from "node:net";

const HOST = "127.0.0.1";
/** Connections of one pair at a time; a lab has a few dozen. */
const CONNECTIONS_MAX = 1_000;

/** An end of either side is the end of both: half-closed connections are passed on, broken ones break the other. */
function join(near: Socket, far: Socket): void {
  near.setNoDelay(true);
  far.setNoDelay(true);
  for (const [from, to] of [[near, far], [far, near]] as const) {
    from.pipe(to);
    from.on("error", () => to.destroy());
    from.once("close", () => to.destroy());
  }
}

function relay(from: number, to: number): void {
  const server = createServer({ allowHalfOpen: true }, (near) =>
    join(near, connect({ host: HOST, port: to, allowHalfOpen: true })));
  server.maxConnections = CONNECTIONS_MAX;
  server.listen(from, HOST);
}

const [health = "", ...pairs] = process.argv.slice(2);
for (const pair of pairs) {
  const [from, to] = pair.split(":").map(Number);
  relay(Number(from), Number(to));
}
createHealthServer((_, answer) => answer.end("relaying\n")).listen(Number(health), HOST);

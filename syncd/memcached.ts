/**
 * The one thing Holdfast says to memcached: "delete this key". Text protocol; a key that is not there is fine.
 * Source: memcached doc/protocol.txt, "Deletion". No pool and no pipelining beyond one burst: a connection per burst is cheap
 * beside what it saves.
 */
import { connect, type Socket } from "node:net";
import { OperatingError } from "../core/errors.ts";
import type { Clock } from "../core/clock.ts";

/** How long one burst may take. */
export const MEMCACHED_TIMEOUT_MS = 1_000;

function connectTo(server: string): Socket {
  if (server.startsWith("unix:")) return connect({ path: server.slice("unix:".length) });
  const colon = server.lastIndexOf(":");
  return connect({ host: server.slice(0, colon), port: Number(server.slice(colon + 1)) });
}

/** Deletes `keys` on one server ("unix:/path" or "host:port"). @throws E_CACHE_UNREACHABLE */
export function deleteKeys(server: string, keys: readonly string[], clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connectTo(server);
    let answers = "";
    const finish = (failure?: string): void => {
      cancel();
      socket.destroy();
      if (failure === undefined) resolve();
      else reject(new OperatingError("E_CACHE_UNREACHABLE", `memcached ${server}: ${failure}`, { server }));
    };
    const cancel = clock.after(MEMCACHED_TIMEOUT_MS, () => finish(`no answer within ${MEMCACHED_TIMEOUT_MS} ms`));
    socket.on("error", (error) => finish(error.message));
    socket.on("close", () => finish("the connection was closed"));
    socket.on("data", (bytes: Buffer) => {
      answers += bytes.toString("latin1");
      if (answers.split("\r\n").length > keys.length) finish();
    });
    socket.write(keys.map((key) => `delete ${key}\r\n`).join(""));
  });
}

/**
 * Ports of a lab: one block of consecutive ports, chosen once from the lab's name and kept. The block lies below the range
 * that Linux gives to outgoing connections (32768 and up), so that a stopped lab does not lose a port to a passing client.
 */
import { createServer, type Server } from "node:net";
import { OperatingError } from "../core/errors.ts";

const FIRST_PORT = 12_000;
const LAST_PORT = 31_999;
export const PORTS_PER_LAB = 20;
const BLOCKS = Math.floor((LAST_PORT - FIRST_PORT + 1) / PORTS_PER_LAB);
const BLOCKS_TRIED_MAX = 50;

/** True when nothing on this machine listens on 127.0.0.1:`port`. */
export async function isPortFree(port: number): Promise<boolean> {
  const server: Server = createServer();
  const free = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1" }, () => resolve(true));
  });
  if (free) await new Promise((resolve) => server.close(resolve));
  return free;
}

/**
 * First port of a block of PORTS_PER_LAB ports that are all free now; the same seed tries the same blocks.
 * @param seed  a non-negative integer drawn from the lab's folder.
 * @throws E_LAB_MACHINE when BLOCKS_TRIED_MAX blocks are all in use.
 */
export async function pickPorts(seed: number): Promise<number> {
  for (let tried = 0; tried < BLOCKS_TRIED_MAX; tried += 1) {
    const first = FIRST_PORT + ((seed + tried) % BLOCKS) * PORTS_PER_LAB;
    const free = await Promise.all(Array.from({ length: PORTS_PER_LAB }, (_, index) => isPortFree(first + index)));
    if (free.every(Boolean)) return first;
  }
  throw new OperatingError("E_LAB_MACHINE", `no ${PORTS_PER_LAB} consecutive free ports between ${FIRST_PORT} and ${LAST_PORT}`);
}

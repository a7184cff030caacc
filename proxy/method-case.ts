/**
 * Calls whose method is not in upper case. Some services run "post /v3/users" as POST, while Node's parser refuses the token; a
 * call that the service would have executed must be captured, not refused. When the parser stops at such a method, the
 * connection goes on through a stream that gives the parser the same bytes with the token in upper case and remembers how it was
 * written. Normal traffic never comes here and pays nothing.
 *
 * Invariants: only letter case of a known method is changed, and only at the very start of a request on a connection with
 * nothing under way; one such call is served, then the connection closes, so no later bytes need the same care.
 */
import { METHODS } from "node:http";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";

const KNOWN: ReadonlySet<string> = new Set(METHODS);
/** Longest token worth a look. */
const METHOD_BYTES_MAX = 32;

/** A connection that goes on with other first bytes. Has of a socket what Node's HTTP server and the proxy ask for. */
class CarriedConnection extends Duplex {
  readonly #socket: Duplex;
  readonly method: string;

  constructor(socket: Duplex, method: string, first: Uint8Array) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    this.method = method;
    this.push(first);
    socket.removeAllListeners("data").removeAllListeners("end");
    // Adding a listener makes Node take the connection out of its parser's own hands and emit data again.
    socket.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause();
    });
    socket.on("end", () => this.push(null));
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => this.destroy());
    socket.resume();
  }

  get remoteAddress(): string | undefined {
    return "remoteAddress" in this.#socket ? (this.#socket as Socket).remoteAddress : undefined;
  }

  get remotePort(): number | undefined {
    return "remotePort" in this.#socket ? (this.#socket as Socket).remotePort : undefined;
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}

/**
 * The connection as a stream for the same server, with the method at the start of `packet` (the bytes at which the parser
 * stopped) in upper case. Undefined when they do not start with a known method in other letters.
 */
export function resumeWithUpperCase(socket: Duplex, packet: Uint8Array): Duplex | undefined {
  if (socket instanceof CarriedConnection) return undefined;
  const start = Buffer.from(packet.buffer, packet.byteOffset, Math.min(packet.byteLength, METHOD_BYTES_MAX)).toString("latin1");
  const method = /^[A-Za-z-]+(?= )/.exec(start)?.[0];
  if (method === undefined) return undefined;
  const upper = method.toUpperCase();
  if (upper === method || !KNOWN.has(upper) || upper === "CONNECT") return undefined;
  return new CarriedConnection(socket, method, Buffer.concat([Buffer.from(upper, "latin1"), packet.subarray(method.length)]));
}

/** The method as it was written, for a request that came through resumeWithUpperCase; undefined for all others. */
export function originalMethod(socket: Duplex): string | undefined {
  return socket instanceof CarriedConnection ? socket.method : undefined;
}

/**
 * Bodies on their way through: an upload that may outlive its reader, a body gathered up to a bound, the first bytes kept
 * for capture, and a watch that tells a cut JSON text from a whole one.
 *
 * Invariants: memory per call is bounded by the constants and options named here, whatever the other side does; a body that
 * the client broke off never looks finished upstream.
 */
import { Readable } from "node:stream";
import type { IncomingMessage } from "node:http";
import type { Clock } from "../core/clock.ts";

/** Keeps the first bytes of a body; forgets them all once there are more. */
export class Keeper {
  readonly #mostBytes: number;
  #chunks: Uint8Array[] | undefined = [];
  #sizeBytes = 0;

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes;
    if (mostBytes <= 0) this.#chunks = undefined;
  }

  take(chunk: Uint8Array): void {
    if (this.#chunks === undefined) return;
    this.#sizeBytes += chunk.byteLength;
    if (this.#sizeBytes > this.#mostBytes) this.#chunks = undefined;
    else this.#chunks.push(chunk);
  }

  /** The whole body so far; undefined when it was longer than the bound, or nothing was to be kept. */
  whole(): Uint8Array | undefined {
    if (this.#chunks === undefined) return undefined;
    return this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
  }
}

export interface UploadOptions {
  readonly clock: Clock;
  readonly keeper: Keeper;
  /** Longest silence of the client while the upstream is ready to take more. */
  readonly idleTimeoutMs: number;
}

/**
 * A request body as a stream of its own. The HTTP client destroys the stream it is given when an answer arrives early;
 * destroying the request itself would take the connection, and with it the answer, away from our client.
 */
export class Upload extends Readable {
  readonly #request: IncomingMessage;
  readonly #options: UploadOptions;
  #cancelIdle: (() => void) | undefined;
  /** Monotonic time of the last byte from the client, or of the start. */
  lastMs: number;
  /** Every byte was handed on. */
  complete = false;

  constructor(request: IncomingMessage, options: UploadOptions) {
    super({ highWaterMark: 64 * 1024 });
    this.#request = request;
    this.#options = options;
    this.lastMs = options.clock.monotonicMs();
    request.pause();
    request.on("data", this.#onData).on("end", this.#onEnd).on("error", this.#onLost).on("close", this.#onLost);
    this.#watchIdle();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.lastMs = this.#options.clock.monotonicMs();
    this.#options.keeper.take(chunk);
    if (!this.push(chunk)) this.#request.pause();
  };

  /** The client could send more, but whoever reads this does not take it. */
  get blocked(): boolean {
    return this.#request.isPaused();
  }

  readonly #onEnd = (): void => {
    this.complete = true;
    this.push(null);
  };

  readonly #onLost = (): void => {
    if (!this.complete) this.destroy(new Error("the client broke the request body off"));
  };

  #watchIdle(): void {
    const { clock, idleTimeoutMs } = this.#options;
    this.#cancelIdle = clock.after(idleTimeoutMs, () => {
      if (this.complete || this.destroyed) return;
      const silentMs = clock.monotonicMs() - this.lastMs;
      if (silentMs >= idleTimeoutMs && !this.blocked) this.#request.destroy();
      else this.#watchIdle();
    });
  }

  override _read(): void {
    this.#request.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#cancelIdle?.();
    this.#request.off("data", this.#onData).off("end", this.#onEnd).off("error", this.#onLost).off("close", this.#onLost);
    // Late errors of an abandoned request concern nobody; without a listener they would end the process.
    this.#request.on("error", () => undefined);
    done(error);
  }
}

/** A gathered body, or why there is none. */
export type Gathered =
  | { readonly gathered: "whole"; readonly body: Uint8Array }
  | { readonly gathered: "too-large" }
  | { readonly gathered: "broken" };

/** Reads a whole body of at most `mostBytes`. Bytes above the bound are left to be discarded by the server. */
export function gather(request: IncomingMessage, mostBytes: number, clock: Clock, idleTimeoutMs: number): Promise<Gathered> {
  return new Promise((resolve) => {
    const upload = new Upload(request, { clock, keeper: new Keeper(0), idleTimeoutMs });
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const finish = (gathered: Gathered): void => {
      upload.removeAllListeners("data");
      resolve(gathered);
    };
    upload.on("data", (chunk: Buffer) => {
      sizeBytes += chunk.byteLength;
      if (sizeBytes <= mostBytes) {
        chunks.push(chunk);
        return;
      }
      finish({ gathered: "too-large" });
      upload.destroy();
    });
    upload.once("end", () => finish({ gathered: "whole", body: Buffer.concat(chunks, sizeBytes) }));
    upload.on("error", () => finish({ gathered: "broken" }));
  });
}

/** After an answer that came before the request was read: how long the rest is read and thrown away. */
export const LINGER_MS = 5_000;

/** Reads on and forgets, so that the client gets to read the answer instead of a reset; not for ever. */
export function discardRest(request: IncomingMessage, clock: Clock): void {
  if (request.complete || request.destroyed) return;
  request.resume();
  const cancel = clock.after(LINGER_MS, () => request.socket.destroy());
  request.once("close", cancel).once("end", cancel);
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Tells whether a JSON text that began has ended: counts brackets outside strings, byte by byte, in bounded memory. It does
 * not check grammar: servers may send what they like, they may only not be cut off. Text that does not begin with a
 * bracket is taken to be whole, for nothing tells.
 */
export class JsonWatch {
  #depth = 0;
  #inString = false;
  #escaped = false;
  #plain = false;
  #begun = false;

  take(chunk: Uint8Array): void {
    let at = 0;
    if (!this.#begun) {
      while (at < chunk.length && isSpace(chunk[at] ?? 0)) at += 1;
      if (at === chunk.length) return;
      this.#begun = true;
      const first = chunk[at];
      this.#plain = first !== 0x7b && first !== 0x5b;
    }
    if (this.#plain) return;
    for (; at < chunk.length; at += 1) {
      const byte = chunk[at];
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === BACKSLASH) this.#escaped = true;
        else if (byte === QUOTE) this.#inString = false;
      } else if (byte === QUOTE) this.#inString = true;
      else if (byte === 0x7b || byte === 0x5b) this.#depth += 1;
      else if (byte === 0x7d || byte === 0x5d) this.#depth -= 1;
    }
  }

  /** False when the text has certainly been cut. */
  ended(): boolean {
    return !this.#inString && this.#depth === 0;
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

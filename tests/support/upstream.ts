/**
 * Both ends of the proxy as raw sockets: an upstream that says exactly the bytes a test scripts, and a client that sees
 * exactly the bytes that arrive. Nothing waits for time; every wait names a condition and fails loudly after DEADLINE_MS.
 */
import assert from "node:assert/strict";
import { connect, createServer, type Server, type Socket } from "node:net";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import type { Exchange } from "../../proxy/exchange.ts";
import { forwarderTo, type Forwarder, type Relayed, type RelayOptions } from "../../proxy/forward.ts";
import type { ErrorShape } from "../../proxy/refuse.ts";
import { proxyServer, type ProxyServer } from "../../proxy/server.ts";
import { UPSTREAM_DEFAULTS, type UpstreamProfile } from "../../proxy/upstream.ts";

export const DEADLINE_MS = 8_000;
export const testWorld: World = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };

/** One end of a TCP connection: what came in so far, and what happened to it. */
export class RawConnection {
  readonly socket: Socket;
  received = "";
  ended = false;
  closed = false;
  error: string | undefined;
  readonly #wake: (() => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#note(() => (this.received += chunk.toString("latin1"))));
    socket.on("end", () => this.#note(() => (this.ended = true)));
    socket.on("error", (error: Error & { code?: string }) => this.#note(() => (this.error = error.code ?? error.message)));
    socket.on("close", () => this.#note(() => (this.closed = true)));
  }

  #note(change: () => void): void {
    change();
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** Waits until `truth` holds for this connection. */
  async until(what: string, truth: (connection: this) => boolean): Promise<this> {
    const deadline = systemClock.monotonicMs() + DEADLINE_MS;
    while (!truth(this)) {
      const leftMs = deadline - systemClock.monotonicMs();
      if (leftMs <= 0) {
        const state = { ended: this.ended, closed: this.closed, error: this.error };
        assert.fail(`no ${what} after ${DEADLINE_MS} ms; ${JSON.stringify(state)}; received: ${this.received.slice(-600)}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    return this;
  }

  /** Waits for `text` to arrive. */
  has(text: string): Promise<this> {
    return this.until(`"${text}"`, () => this.received.includes(text));
  }

  /** Waits for a complete head. */
  head(): Promise<this> {
    return this.has("\r\n\r\n");
  }

  gone(): Promise<this> {
    return this.until("end of the connection", () => this.closed || this.ended);
  }

  send(text: string | Uint8Array): this {
    this.socket.write(typeof text === "string" ? Buffer.from(text, "latin1") : text);
    return this;
  }

  end(text = ""): void {
    this.socket.end(Buffer.from(text, "latin1"));
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }
}

/** A server whose connections a test answers by hand, in the order they come. */
export class RawUpstream {
  readonly connections: RawConnection[] = [];
  readonly #server: Server;
  readonly #wake: (() => void)[] = [];
  #taken = 0;

  constructor() {
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      this.connections.push(new RawConnection(socket));
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  listen(): Promise<number> {
    return new Promise((resolve) => this.#server.listen(0, "127.0.0.1", () => resolve(this.port)));
  }

  get port(): number {
    const address = this.#server.address();
    assert.ok(address !== null && typeof address === "object");
    return address.port;
  }

  /** The next connection that no test step has taken yet, once its request head is there. */
  async next(): Promise<RawConnection> {
    const deadline = systemClock.monotonicMs() + DEADLINE_MS;
    while (this.connections.length <= this.#taken) {
      const leftMs = deadline - systemClock.monotonicMs();
      assert.ok(leftMs > 0, "the upstream was not called in time");
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    const connection = this.connections[this.#taken];
    this.#taken += 1;
    assert.ok(connection !== undefined);
    return connection.head();
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** A client of the proxy, connected. */
export function rawClient(port: number): Promise<RawConnection> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => resolve(new RawConnection(socket)));
    socket.once("error", reject);
  });
}

export interface ProxyUnderTest {
  readonly upstream: RawUpstream;
  readonly server: ProxyServer;
  readonly forward: Forwarder;
  readonly port: number;
  /** Outcomes in the order in which calls ended. */
  readonly relayed: Relayed[];
  /** Waits for the next outcome that was not taken yet. */
  outcome(): Promise<Relayed>;
  client(): Promise<RawConnection>;
  close(): Promise<void>;
}

export interface ProxySetting {
  readonly profile?: Partial<UpstreamProfile>;
  readonly options?: Partial<RelayOptions>;
  readonly errorShape?: ErrorShape;
  readonly world?: World;
  readonly drainTimeoutMs?: number;
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Runs before each call is forwarded. */
  readonly before?: (exchange: Exchange) => Promise<void>;
}

/** A proxy in front of a scripted upstream, in this process. */
export async function startProxy(setting: ProxySetting = {}): Promise<ProxyUnderTest> {
  const upstream = new RawUpstream();
  const upstreamPort = await upstream.listen();
  const world = setting.world ?? testWorld;
  const errorShape = setting.errorShape ?? "keystone";
  const forward = forwarderTo({ ...UPSTREAM_DEFAULTS, url: `http://127.0.0.1:${upstreamPort}`, errorShape, keepAlive: false,
    chunkedRequests: false, ...setting.profile }, world);
  const relayed: Relayed[] = [];
  const clients: RawConnection[] = [];
  const wake: (() => void)[] = [];
  let taken = 0;
  const handle = async (exchange: Exchange): Promise<void> => {
    await setting.before?.(exchange);
    relayed.push(await forward.relay(exchange, { keepAnswerBytes: 65_536, keepRequestBytes: 65_536, ...setting.options }));
    for (const each of wake.splice(0)) each();
  };
  const server = proxyServer({ host: "127.0.0.1", port: 0, errorShape, drainTimeoutMs: setting.drainTimeoutMs ?? 1_000, handle,
    tls: setting.tls }, world);
  await server.start();
  const port = server.address()?.port ?? 0;
  return {
    upstream, server, forward, port, relayed,
    async client() {
      const client = await rawClient(port);
      clients.push(client);
      return client;
    },
    async outcome() {
      const deadline = systemClock.monotonicMs() + DEADLINE_MS;
      while (relayed.length <= taken) {
        const leftMs = deadline - systemClock.monotonicMs();
        assert.ok(leftMs > 0, "no call ended in time");
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, leftMs);
          wake.push(() => {
            clearTimeout(timer);
            resolve();
          });
        });
      }
      const next = relayed[taken];
      taken += 1;
      assert.ok(next !== undefined);
      return next;
    },
    async close() {
      await forward.close();
      await upstream.close();
      // A draining server waits a moment for idle clients, on a clock that may stand still here.
      for (const { socket } of clients) socket.destroy();
      await server.stop();
    },
  };
}

/**
 * Carries calls to the upstream and answers back, byte for byte where HTTP lets a proxy do so. undici's dispatcher speaks to the
 * upstream; Node's server has already spoken to the client. One Relay object per call (relay.ts) decides what happens.
 *
 * Invariants: a call that writes uses a connection of its own and is sent at most once; at most connectionsMax calls are with
 * the upstream and CALLS_WAITING_MAX wait for one of those places, the rest are refused; a call that got no place was
 * certainly not executed.
 * Known limits of undici: it writes "host" first and "content-length" last in lower case, leaves "Content-Length: 0" out where
 * the method needs none, and takes an unasked "100 Continue" from the upstream for a broken answer.
 * Not here: what the call means (route.ts), notes about it (intent.ts), Upgrade (such a request is served as plain HTTP/1.1).
 */
import { buildConnector, Pool, type Dispatcher } from "undici";
import type { Cancel } from "../core/clock.ts";
import type { World } from "../core/world.ts";
import type { Exchange } from "./exchange.ts";
import { Relay, type Relayed, type RelayOptions } from "./relay.ts";
import type { UpstreamProfile } from "./upstream.ts";

export type { Exchange } from "./exchange.ts";
export type { Relayed, RelayOptions } from "./relay.ts";

/** Calls that wait for a connection at most; further ones are refused with 503. */
export const CALLS_WAITING_MAX = 1024;
/** Header section of an answer at most. */
export const ANSWER_HEAD_BYTES_MAX = 128 * 1024;
/** A reusable connection is given up after this long without use, unless the upstream names a time itself. */
const CONNECTION_IDLE_MS = 4_000;

export interface Forwarder {
  /**
   * Forwards the call and delivers the answer, or an answer of our own when there is none. Resolves when the upstream's answer
   * has been handed to the client completely, or the upstream has finished for a client that left. Never rejects.
   */
  relay(exchange: Exchange, options: RelayOptions): Promise<Relayed>;
  /** Uses what was learnt about the upstream for calls from now on. */
  adopt(profile: UpstreamProfile): void;
  /** Closes the connections; calls under way fail. */
  close(): Promise<void>;
}

/** What a Relay needs of its forwarder. */
export interface Carrier {
  readonly profile: UpstreamProfile;
  readonly world: World;
  /** Path in front of every target; empty in the normal case. */
  readonly prefix: string;
  /** `reuse`: the connection may have served others before. */
  dispatch(reuse: boolean, options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void;
  /** True while undici reports the end of an answer because its connection was reset, not closed. */
  readonly resetting: boolean;
}

interface Waiting {
  readonly start: () => void;
  readonly cancel: Cancel;
}

class UndiciForwarder implements Forwarder, Carrier {
  readonly world: World;
  readonly prefix: string;
  profile: UpstreamProfile;
  resetting = false;
  /** Connections that serve one call each, and connections that may be used again. */
  readonly #single: Pool;
  readonly #reused: Pool;
  readonly #waiting: Waiting[] = [];
  #underWay = 0;

  constructor(profile: UpstreamProfile, world: World, name: string) {
    this.world = world;
    this.profile = profile;
    const { origin, pathname } = new URL(profile.url);
    this.prefix = pathname.replace(/\/+$/, "");
    const options = { connect: this.#connector(profile), maxHeaderSize: ANSWER_HEAD_BYTES_MAX,
      keepAliveTimeout: CONNECTION_IDLE_MS, connections: null,
      // The relay watches the time itself: one timer a call instead of three, and the clock that simulations turn.
      headersTimeout: 0, bodyTimeout: 0 };
    this.#single = new Pool(origin, { ...options, pipelining: 0 });
    this.#reused = new Pool(origin, { ...options, pipelining: 1 });
    world.metrics.gauge("holdfast_proxy_calls_under_way", () => this.#underWay, { at: name });
    world.metrics.gauge("holdfast_proxy_calls_waiting", () => this.#waiting.length, { at: name });
  }

  /**
   * undici takes a reset connection for a finished answer whose length only the close tells. A listener that was there first
   * raises a flag for the time of that one event. The name that a certificate is checked against is the upstream's own,
   * never the client's Host.
   */
  #connector(profile: UpstreamProfile): buildConnector.connector {
    const hostname = new URL(profile.url).hostname;
    const connect = buildConnector({ timeout: profile.connectTimeoutMs, allowH2: false,
      ...(profile.authorities === undefined ? {} : { ca: profile.authorities }) });
    return (options, callback) => connect({ ...options, servername: hostname }, (...outcome) => {
      outcome[1]?.on("error", () => {
        this.resetting = true;
        queueMicrotask(() => (this.resetting = false));
      });
      callback(...outcome);
    });
  }

  dispatch(reuse: boolean, options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    (reuse ? this.#reused : this.#single).dispatch(options, handler);
  }

  adopt(profile: UpstreamProfile): void {
    this.profile = profile;
  }

  relay(exchange: Exchange, options: RelayOptions): Promise<Relayed> {
    return new Promise((resolve) => {
      const relay = new Relay(this, exchange, options, (relayed) => {
        this.#release();
        resolve(relayed);
      });
      if (this.#underWay < this.profile.connectionsMax) {
        this.#underWay += 1;
        relay.start();
        return;
      }
      this.#wait(() => relay.start(), () => resolve(relay.refuseUnsent("The service is busy.")));
    });
  }

  #wait(start: () => void, giveUp: () => void): void {
    if (this.#waiting.length >= CALLS_WAITING_MAX) return giveUp();
    const waiting: Waiting = { start, cancel: this.world.clock.after(this.profile.firstByteTimeoutMs, () => {
      const place = this.#waiting.indexOf(waiting);
      if (place === -1) return;
      this.#waiting.splice(place, 1);
      giveUp();
    }) };
    this.#waiting.push(waiting);
  }

  /** Hands the place of a finished call to the one that waits longest. */
  #release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#underWay -= 1;
      return;
    }
    next.cancel();
    next.start();
  }

  async close(): Promise<void> {
    await Promise.all([this.#single.destroy(), this.#reused.destroy()]);
  }
}

/** A forwarder for one upstream, named so in metrics. Opens no connection before the first call. */
export function forwarderTo(profile: UpstreamProfile, world: World, name = "upstream"): Forwarder {
  return new UndiciForwarder(profile, world, name);
}

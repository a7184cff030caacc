/**
 * The server behind this proxy: where it is and what it can be trusted with. OpenStack services run under servers that differ
 * in two things that break transparency: whether a connection may be used again, and whether request bodies of unknown
 * length arrive. Both are found out by a probe at start and may be overruled by configuration.
 *
 * Invariants: until something is proved the profile is the careful one; the probe sends plain GETs of "/" only.
 * Facts behind it: uWSGI with --http-socket answers once and closes, mostly without saying so, and hands services an empty
 * body for a chunked request; eventlet, Apache and nginx keep connections and decode chunks (seen on Debian's packages). No
 * server was seen to keep connections and lose chunks, so the first decides the second; uWSGI's own HTTP router with
 * keep-alive might: set chunkedRequests to false there. Whether the upstream sends 100 is not asked: it is answered here.
 */
import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Part } from "../core/lifecycle.ts";
import { waitBeforeRetry } from "../core/retry.ts";
import { sleep } from "../core/clock.ts";
import type { World } from "../core/world.ts";
import type { ErrorShape } from "./refuse.ts";

/** An upstream as configured. Units in the names; a path in `url` is put in front of every target. */
export interface UpstreamSettings {
  readonly url: string;
  readonly keepAlive: "auto" | boolean;
  readonly chunkedRequests: "auto" | boolean;
  readonly connectTimeoutMs: number;
  readonly firstByteTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly connectionsMax: number;
  /** Certificates (PEM) of the authorities that sign an https upstream; the system's when undefined. */
  readonly authorities?: string | undefined;
}

/** What is known about an upstream. */
export interface UpstreamProfile extends Omit<UpstreamSettings, "keepAlive" | "chunkedRequests"> {
  readonly errorShape: ErrorShape;
  /** Reads may reuse connections. Calls that write never do: a dead connection would make their outcome unknown. */
  readonly keepAlive: boolean;
  /** Bodies of unknown length may be streamed; otherwise they are gathered and sent with their length. */
  readonly chunkedRequests: boolean;
}

export const UPSTREAM_DEFAULTS = { keepAlive: "auto", chunkedRequests: "auto", connectTimeoutMs: 2_000,
  firstByteTimeoutMs: 75_000, idleTimeoutMs: 300_000, connectionsMax: 128 } as const;

/** A known upstream is asked again this often. */
const LEARN_EVERY_MS = 60_000;
/** A silent one is asked again after these waits. */
const LEARN_BACKOFF = { firstMs: 250, lastMs: 10_000 } as const;
/** Largest answer the probe reads. */
const PROBE_BYTES_MAX = 64 * 1024;

/** The careful profile: works with every server, at the price of a connection per call. */
export function carefulProfile(settings: UpstreamSettings, errorShape: ErrorShape): UpstreamProfile {
  return { ...settings, errorShape, keepAlive: settings.keepAlive === true, chunkedRequests: settings.chunkedRequests === true };
}

/** The profile with everything the probe can find out; `reached` is false when the upstream did not answer it. */
export async function learnProfile(settings: UpstreamSettings, errorShape: ErrorShape, world: Pick<World, "clock">,
): Promise<{ readonly profile: UpstreamProfile; readonly reached: boolean }> {
  const careful = carefulProfile(settings, errorShape);
  if (settings.keepAlive !== "auto" && settings.chunkedRequests !== "auto") return { profile: careful, reached: true };
  const seen = await probe(settings, world);
  const keeps = seen === "kept";
  return { reached: seen !== "silent", profile: { ...careful,
    keepAlive: settings.keepAlive === "auto" ? keeps : settings.keepAlive,
    chunkedRequests: settings.chunkedRequests === "auto" ? keeps : settings.chunkedRequests } };
}

/**
 * A part that asks the upstream at start and again from time to time, for servers are replaced behind a running proxy. It never
 * waits: until the first answer the careful profile serves, and notReady says so.
 */
export function keepLearning(settings: UpstreamSettings, errorShape: ErrorShape, into: { adopt(profile: UpstreamProfile): void },
  world: World, name = "upstream"): Part {
  const stopping = new AbortController();
  let reachedOnce = false;
  const learn = async (): Promise<void> => {
    for (let failures = 0; !stopping.signal.aborted;) {
      const { profile, reached } = await learnProfile(settings, errorShape, world);
      if (reached) {
        const { keepAlive, chunkedRequests } = profile;
        if (!reachedOnce) world.log.info("learnt the upstream", { name, keepAlive, chunkedRequests });
        reachedOnce = true;
        failures = 0;
        into.adopt(profile);
        await sleep(world.clock, LEARN_EVERY_MS, stopping.signal);
      } else {
        failures += 1;
        await waitBeforeRetry(world, LEARN_BACKOFF, failures, stopping.signal);
      }
    }
  };
  let learning: Promise<void> = Promise.resolve();
  return {
    name,
    start: () => {
      learning = learn();
      return Promise.resolve();
    },
    stop: () => {
      stopping.abort();
      return learning;
    },
    notReady: () => (reachedOnce ? undefined : `${new URL(settings.url).origin} has not answered yet`),
  };
}

/** Asks twice on one connection. "kept": both were answered; "closed": only the first; "silent": none in time. */
function probe(settings: UpstreamSettings, world: Pick<World, "clock">): Promise<"kept" | "closed" | "silent"> {
  const url = new URL(settings.url);
  const question = `GET / HTTP/1.1\r\nHost: ${url.host}\r\nAccept: application/json\r\n\r\n`;
  return new Promise((resolve) => {
    const socket = dial(url, settings.authorities);
    const cancel = world.clock.after(settings.connectTimeoutMs * 2, () => finish());
    let text = "";
    let answers = 0;
    const finish = (): void => {
      cancel();
      socket.destroy();
      resolve(answers === 0 ? "silent" : answers === 1 ? "closed" : "kept");
    };
    socket.setEncoding("latin1");
    socket.on(url.protocol === "https:" ? "secureConnect" : "connect", () => socket.write(question));
    socket.on("data", (chunk: string) => {
      text += chunk;
      const end = endOfAnswer(text);
      if (end === "open-ended") answers = 1;
      if (text.length > PROBE_BYTES_MAX || end === "open-ended") return finish();
      if (end === undefined) return;
      text = text.slice(end);
      answers += 1;
      if (answers === 2) return finish();
      socket.write(question);
    });
    socket.on("error", finish);
    socket.on("close", finish);
  });
}

function dial(url: URL, authorities: string | undefined): Socket {
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  if (url.protocol !== "https:") return connectPlain({ host, port: Number(url.port || 80) });
  return connectTls({ host, port: Number(url.port || 443), servername: host,
    ...(authorities === undefined ? {} : { ca: authorities }) });
}

/**
 * Where the first answer in `text` ends; undefined while it is incomplete; "open-ended" when only the end of the connection
 * tells, or the server announces that it will close.
 */
function endOfAnswer(text: string): number | "open-ended" | undefined {
  const head = text.indexOf("\r\n\r\n");
  if (head === -1) return undefined;
  const fields = text.slice(0, head).toLowerCase();
  if (/\r\nconnection:[^\r]*close/.test(fields) || !fields.startsWith("http/1.1")) return "open-ended";
  const length = /\r\ncontent-length: *([0-9]+)/.exec(fields)?.[1];
  if (length !== undefined) {
    const end = head + 4 + Number(length);
    return text.length >= end ? end : undefined;
  }
  if (!/\r\ntransfer-encoding:[^\r]*chunked/.test(fields)) return "open-ended";
  const last = text.indexOf("\r\n0\r\n\r\n", head + 2);
  return last === -1 ? undefined : last + 7;
}

/**
 * `holdfast status`: asks the admin servers of running processes and says in one table who is there and who is ready.
 *
 * Invariants: every question ends within ASK_TIMEOUT_MS; what a server answers is shown without control characters; nothing
 * is ever changed.
 * Not here: the answers (admin/server.ts), printing and exit (holdfast.ts).
 */
import type { Clock } from "../core/clock.ts";
import { EXIT_FAILED, EXIT_OK, EXIT_UNREACHABLE } from "./run.ts";
import { printable, tableOf } from "./tables.ts";

/** Where processes listen unless their configuration says otherwise. */
export const DEFAULT_ADMINS = ["http://127.0.0.1:9470", "http://127.0.0.1:9480"];

const ASK_TIMEOUT_MS = 3_000;

/** One admin server's answer. */
export type Asked =
  | { readonly admin: string; readonly reached: true; readonly ready: boolean; readonly process: string; readonly site: string;
      readonly service: string; readonly notReady: Readonly<Record<string, string>>; readonly answer: unknown }
  | { readonly admin: string; readonly reached: false; readonly because: string };

/** Asks `admin` (http://host:port) for its status. Never rejects. */
export async function askStatus(admin: string, clock: Clock): Promise<Asked> {
  const limit = new AbortController();
  const cancel = clock.after(ASK_TIMEOUT_MS, () => limit.abort());
  try {
    const response = await fetch(new URL("/status", admin), { signal: limit.signal, redirect: "error" });
    const answer: unknown = await response.json();
    return readAnswer(admin, answer)
      ?? { admin, reached: false, because: `something else answers there (status ${response.status})` };
  } catch (error) {
    return { admin, reached: false, because: limit.signal.aborted ? `no answer in ${ASK_TIMEOUT_MS} ms` : reasonOf(error) };
  } finally {
    cancel();
  }
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  if (cause instanceof Error && "code" in cause) return String(cause.code);
  return error instanceof Error ? error.message : String(error);
}

function readAnswer(admin: string, answer: unknown): Asked | undefined {
  if (typeof answer !== "object" || answer === null) return undefined;
  const said = answer as Readonly<Record<string, unknown>>;
  if (typeof said["ready"] !== "boolean" || typeof said["process"] !== "string") return undefined;
  const textOf = (name: string): string => (typeof said[name] === "string" ? said[name] : "-");
  const notReady = typeof said["notReady"] === "object" && said["notReady"] !== null ? said["notReady"] : {};
  return { admin, reached: true, ready: said["ready"],
    process: textOf("process"), site: textOf("site"), service: textOf("service"),
    notReady: Object.fromEntries(Object.entries(notReady).map(([part, reason]) => [part, String(reason)])), answer };
}

/** The exit status: not reached outweighs not ready. */
export function exitOf(asked: readonly Asked[]): number {
  if (asked.some((one) => !one.reached)) return EXIT_UNREACHABLE;
  return asked.every((one) => one.reached && one.ready) ? EXIT_OK : EXIT_FAILED;
}

/** A table for people, one line per process and one per reason. */
export function statusTable(asked: readonly Asked[]): string {
  const rows = asked.map((one) => one.reached
    ? [one.process, one.site, one.service, one.ready ? "ready" : "NOT READY", one.admin]
    : ["-", "-", "-", "UNREACHABLE", one.admin]);
  const table = tableOf([["PROCESS", "SITE", "SERVICE", "STATE", "ADMIN"], ...rows]);
  const reasons = asked.flatMap((one) => one.reached
    ? Object.entries(one.notReady).map(([part, reason]) => `${one.admin}: ${part}: ${reason}`)
    : [`${one.admin}: ${one.because}`]);
  return [...table, ...(reasons.length === 0 ? [] : ["", ...reasons.map(printable)])].join("\n");
}

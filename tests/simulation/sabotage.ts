/**
 * Sabotage: planted bugs, wrapped around the product's ports and options, that the simulation must catch. Each stands for a
 * mistake that somebody could make in the product; the product's code itself has no switch for any of them.
 */
import type { CaptureOptions } from "../../capture/capture.ts";
import type { GuardOptions } from "../../capture/guard.ts";
import type { Log } from "../../core/log.ts";
import type { Feed } from "../../feed/feed.ts";
import type { Journal } from "../../proxy/intent.ts";
import type { Rows } from "../../rows/rows.ts";
import type { Weather } from "./plan.ts";

export type Role = "proxy" | "auditor" | "site";

export interface Sabotage {
  readonly rows: (rows: Rows, role: Role, log: Log) => Rows;
  readonly feed: (feed: Feed, role: Role) => Feed;
  readonly journal: (journal: Journal) => Journal;
  readonly log: (log: Log) => Log;
  readonly capture: (options: CaptureOptions) => CaptureOptions;
  readonly guard: (options: GuardOptions) => GuardOptions;
  readonly settleMs: (settleMs: number) => number;
  /** The database is asked what a call may take away before it is forwarded. */
  readonly asksBefore: boolean;
  /** A crash leaves the journal as it is. */
  readonly keepsJournal: boolean;
  readonly replays: boolean;
  readonly auditsRows: boolean;
  readonly siteChecksReferences: boolean;
  /** Conditions under which the bug can show. */
  readonly weather: Partial<Weather>;
}

/** Nothing is broken. */
export const SOUND: Sabotage = {
  rows: (rows) => rows, feed: (feed) => feed, journal: (journal) => journal, log: (log) => log, capture: (options) => options,
  guard: (options) => options,
  settleMs: (settleMs) => settleMs, asksBefore: true, keepsJournal: true, replays: true, auditsRows: true,
  siteChecksReferences: true, weather: {},
};

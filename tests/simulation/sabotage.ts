/**
 * Sabotage: planted bugs, wrapped around the product's ports, that the simulation must catch. Each stands for a mistake that
 * somebody could make in the product; the product's code itself has no switch for any of them.
 */
import type { Before } from "../../capture/capture.ts";
import type { Feed } from "../../feed/feed.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";

export interface Sabotage {
  readonly siteRows: (rows: Rows) => Rows;
  readonly feed: (feed: Feed) => Feed;
  readonly before: (before: Before) => Before;
  readonly settles: boolean;
  readonly keepsIntents: boolean;
}

/** Nothing is broken. */
export const SOUND: Sabotage = { siteRows: (rows) => rows, feed: (feed) => feed, before: (before) => before, settles: true,
  keepsIntents: true };

/** An object whose methods are those of `target` except the given ones, bound to the target so that private fields work. */
export function altered<T extends object>(target: T, methods: Partial<T>): T {
  return new Proxy(target, {
    get(object, name): unknown {
      const own: unknown = Reflect.get(methods, name);
      const value: unknown = own ?? Reflect.get(object, name, object);
      return typeof value === "function" ? (value as (...inputs: unknown[]) => unknown).bind(object) : value;
    },
  });
}

function alteredWrites(rows: Rows, alter: (write: RowWriter) => Partial<RowWriter>): Rows {
  return altered(rows, {
    transaction: <T>(work: (write: RowWriter) => Promise<T>): Promise<T> =>
      rows.transaction((write) => work(altered(write, alter(write)))),
  });
}

const isLedger = (name: string): boolean => name.startsWith("holdfast_");

/** One in `every` inserts of service rows is lost while position and ledger are stored. */
function losing(rows: Rows, every: number): Rows {
  let inserts = 0;
  return alteredWrites(rows, (write) => ({
    insert: async (table, inserted): Promise<void> => {
      if (!isLedger(table.name) && (inserts += 1) % every === 0) return;
      await write.insert(table, inserted);
    },
  }));
}

/** Planted bug, and the seeds within which it must be caught. */
export const MUTANTS: readonly { readonly name: string; readonly sabotage: Sabotage; readonly seedsMax: number }[] = [
  { name: "what a delete takes away is not asked before", sabotage: { ...SOUND, before: (before) =>
    ({ ...before, keys: [], names: [] }) }, seedsMax: 400 },
  { name: "no settle re-reads", sabotage: { ...SOUND, settles: false }, seedsMax: 400 },
  { name: "intents are forgotten in a crash", sabotage: { ...SOUND, keepsIntents: false }, seedsMax: 400 },
  { name: "the position moves although a row was lost", sabotage: { ...SOUND, siteRows: (rows) => losing(rows, 20) },
    seedsMax: 400 },
];

/**
 * The planted bugs, one mistake each, and the seeds within which the simulation must catch them. All are made at ports or with
 * options; what they alter is told in the name.
 */
import type { Publication, Published } from "../../feed/feed.ts";
import type { Intent, Journal } from "../../proxy/intent.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import type { Table } from "../../schemas/define.ts";
import type { Row } from "../../schemas/row.ts";
import { altered } from "./altered.ts";
import type { Weather } from "./plan.ts";
import { SOUND, type Sabotage } from "./sabotage.ts";

export interface Mutant {
  readonly name: string;
  readonly sabotage: Sabotage;
  readonly seedsMax: number;
}

/** The event path alone: an auditor would put right what these bugs break. */
const NO_AUDITOR: Partial<Weather> = { auditors: 0 };

function alteredWrites(rows: Rows, alter: (write: RowWriter) => Partial<RowWriter>): Rows {
  return altered(rows, {
    transaction: <T>(work: (write: RowWriter) => Promise<T>): Promise<T> =>
      rows.transaction((write) => work(altered(write, alter(write)))),
  });
}

function atSite(alter: (write: RowWriter) => Partial<RowWriter>): Sabotage["rows"] {
  return (rows, role) => (role === "site" ? alteredWrites(rows, alter) : rows);
}

const isLedger = (table: Table): boolean => table.name.startsWith("holdfast_");

/** One in `every` inserts of service rows is lost while position and ledger are stored. */
function losing(every: number): Sabotage["rows"] {
  let inserts = 0;
  return atSite((write) => ({ insert: async (table, inserted) => {
    if (!isLedger(table) && (inserts += 1) % every === 0) return;
    await write.insert(table, inserted);
  } }));
}

/** Applied versions are not asked for: everything that arrives is written. */
const NO_VERSIONS = atSite((write) => ({
  select: async (table, match, columns) => (table.name === "holdfast_applied" ? [] : write.select(table, match, columns)),
  insert: async (table, inserted) => {
    if (table.name === "holdfast_applied") await write.remove(table, inserted);
    await write.insert(table, inserted);
  },
}));

/** The site believes that every row it asks for is there. */
const NO_PARENTS = atSite((write) => ({
  select: async (table, match, columns) => {
    const asksForParents = !isLedger(table) && columns?.join() === match.columns.join();
    if (columns === undefined || !asksForParents) return write.select(table, match, columns);
    return match.values.map((values): Row => Object.fromEntries(columns.map((column, place) => [column, values[place] ?? null])));
  },
}));

/** What waits, or cannot be applied, is forgotten instead of noted. */
const FORGETS_WAITING = atSite((write) => ({
  insert: async (table, inserted) => {
    if (table.name !== "holdfast_parked" && table.name !== "holdfast_quarantine") await write.insert(table, inserted);
  },
}));

/** Local columns are written as if they came with the image. */
const WRITES_LOCAL = atSite((write) => ({
  update: async (table, rows, columns) => {
    const local = Object.keys(table.local);
    await write.update(table, rows.map((row) => ({ ...row, ...table.local })), [...columns, ...local]);
  },
}));

/** After a conflict the same image is sent again, expecting what is there now. */
const SENDS_AGAIN: Sabotage["feed"] = (feed, role) => (role === "site" ? feed : altered(feed, {
  publish: async (publication: Publication): Promise<Published> => {
    const published = await feed.publish(publication);
    if (published.stored || published.last === undefined) return published;
    return feed.publish({ ...publication, expected: published.last, id: `${publication.id} again` });
  },
}));

/** A call is forwarded at once and noted when there is time. */
function notesLate(journal: Journal): Journal {
  let id = 0;
  const made = new Map<Intent, Promise<Intent | undefined>>();
  const later = (intent: Intent, act: (real: Intent) => void): void => void made.get(intent)?.then((real) => {
    if (real !== undefined) act(real);
  });
  return altered(journal, {
    open: async (note) => {
      const intent: Intent = { id: -(id += 1), note };
      const waited = new Promise<void>((resolve) => setImmediate(resolve));
      made.set(intent, waited.then(() => journal.open(note)).catch(() => undefined));
      return intent;
    },
    amend: (intent, note) => later(intent, (real) => journal.amend(real, note)),
    close: (intent) => later(intent, (real) => journal.close(real)),
  });
}

export const MUTANTS: readonly Mutant[] = [
  { name: "what a delete takes away is not asked before", seedsMax: 400,
    sabotage: { ...SOUND, asksBefore: false, weather: NO_AUDITOR } },
  { name: "no settle re-reads", seedsMax: 400, sabotage: { ...SOUND, settleMs: () => 0, weather: NO_AUDITOR,
    capture: (options) => ({ ...options, settle: { ...options.settle, delaysMs: [] } }) } },
  { name: "intents are forgotten in a crash", seedsMax: 400, sabotage: { ...SOUND, keepsJournal: false, weather: NO_AUDITOR } },
  { name: "open intents are not replayed", seedsMax: 400, sabotage: { ...SOUND, replays: false, weather: NO_AUDITOR } },
  { name: "a call is noted after it was forwarded", seedsMax: 400,
    sabotage: { ...SOUND, journal: notesLate, weather: NO_AUDITOR } },
  { name: "an old payload is sent again after a conflict", seedsMax: 400, sabotage: { ...SOUND, feed: SENDS_AGAIN } },
  { name: "the position moves although a row was lost", seedsMax: 400,
    sabotage: { ...SOUND, rows: losing(20), weather: NO_AUDITOR } },
  { name: "no version guard at the site", seedsMax: 400, sabotage: { ...SOUND, rows: NO_VERSIONS } },
  { name: "foreign keys are off and parents are not looked for", seedsMax: 400,
    sabotage: { ...SOUND, rows: NO_PARENTS, siteChecksReferences: false } },
  { name: "changes that must wait are dropped", seedsMax: 400, sabotage: { ...SOUND, rows: FORGETS_WAITING } },
  { name: "local columns are overwritten", seedsMax: 400, sabotage: { ...SOUND, rows: WRITES_LOCAL } },
];

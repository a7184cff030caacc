/**
 * The planted bugs, one mistake each, and the seeds within which the simulation must catch them. All are made at ports or with
 * options; what they alter is told in the name.
 */
import type { Feed, FeedMessage, Publication, Published } from "../../feed/feed.ts";
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
/** What only an auditor's work can show. */
const AUDITED: Partial<Weather> = { auditors: 1 };

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

const HEARTBEAT = ".all._hb";
const MANIFEST = ".all._manifest";

function readingWithout(feed: Feed, hides: (message: FeedMessage) => boolean): Partial<Feed> {
  return {
    last: async (subject) => {
      const last = await feed.last(subject);
      return last !== undefined && hides(last) ? undefined : last;
    },
    read: async function* (options, signal) {
      for await (const batch of feed.read(options, signal)) {
        const left = batch.filter((message) => !hides(message));
        if (left.length > 0 || batch.length === 0) yield left;
      }
    },
  };
}

function siteWithout(ending: string): Sabotage["feed"] {
  return (feed, role) => (role !== "site" ? feed
    : altered(feed, readingWithout(feed, ({ subject }) => subject.endsWith(ending))));
}

function rewritten(feed: Feed, rewrite: (message: FeedMessage) => FeedMessage): Partial<Feed> {
  return {
    last: async (subject) => {
      const last = await feed.last(subject);
      return last === undefined ? undefined : rewrite(last);
    },
    read: async function* (options, signal) {
      for await (const batch of feed.read(options, signal)) yield batch.map(rewrite);
    },
  };
}

/** The site takes every message for one of the first epoch. */
const ONE_EPOCH: Sabotage["feed"] = (feed, role) => (role !== "site" ? feed : altered(feed, rewritten(feed, (message) => {
  const { headers, payload, subject } = message;
  if (!subject.includes("._") || payload.byteLength === 0) return { ...message, headers: { ...headers, "Hf-Epoch": "1" } };
  const said = JSON.parse(Buffer.from(payload).toString("utf8")) as { readonly floor: object };
  return { ...message, payload: Buffer.from(JSON.stringify({ ...said, epoch: 1, floor: { ...said.floor, epoch: 0 } })) };
})));

/** Images of older epochs count as said in this one: the centre takes every image for one of the newest epoch it published in. */
const EQUAL_ACROSS_EPOCHS: Sabotage["feed"] = (feed, role) => {
  if (role === "site") return feed;
  let newest = "1";
  const seen = (message: FeedMessage): FeedMessage => ({ ...message, headers: { ...message.headers, "Hf-Epoch": newest } });
  return altered(feed, { ...rewritten(feed, (message) => (message.subject.includes("._") ? message : seen(message))),
    publish: (publication: Publication): Promise<Published> => {
      newest = publication.headers["Hf-Epoch"] ?? newest;
      return feed.publish(publication);
    } });
};

/** The auditor tells nobody which tombstones may be gone. */
const NO_FLOOR: Sabotage["feed"] = (feed, role) => (role !== "auditor" ? feed : altered(feed, {
  publish: (publication: Publication): Promise<Published> => {
    if (!publication.subject.includes("._")) return feed.publish(publication);
    const said = JSON.parse(Buffer.from(publication.payload).toString("utf8")) as object;
    const payload = Buffer.from(JSON.stringify({ ...said, floor: { epoch: 0, sequence: 0 } }));
    return feed.publish({ ...publication, payload });
  },
}));

/** The auditor says that a new stream is filled before it is. */
const FILLED_TOO_EARLY: Sabotage["feed"] = (feed, role) => (role !== "auditor" ? feed : altered(feed, {
  publish: (publication: Publication): Promise<Published> => {
    if (!publication.subject.endsWith(HEARTBEAT)) return feed.publish(publication);
    const said = JSON.parse(Buffer.from(publication.payload).toString("utf8")) as object;
    return feed.publish({ ...publication, payload: Buffer.from(JSON.stringify({ ...said, filled: true })) });
  },
}));

/** Whatever a site asks about is said to be gone. */
const ALL_GONE = (feed: Feed): Feed => altered(feed, {
  ask: async (subject, question, timeoutMs) => {
    const asked = JSON.parse(Buffer.from(question).toString("utf8")) as { op: string; input: { names: string[] } };
    return asked.op === "gone" ? Buffer.from(JSON.stringify({ ok: true, output: { gone: asked.input.names } }))
      : feed.ask(subject, question, timeoutMs);
  },
});

/** The two together: either alone does no harm. */
const FILLED_AND_GONE: Sabotage["feed"] = (feed, role) => (role === "site" ? ALL_GONE(feed) : FILLED_TOO_EARLY(feed, role));

/** What the database no longer has is not called deleted by the auditor: it takes the tombstone for stored. */
const NO_TOMBSTONES: Sabotage["feed"] = (feed, role) => (role !== "auditor" ? feed : altered(feed, {
  publish: (publication: Publication): Promise<Published> => (publication.headers["Hf-Deleted"] === "1"
    ? Promise.resolve({ stored: true, sequence: publication.expected + 1 }) : feed.publish(publication)),
}));

/** What the stream's index lost is not taken away before it is published again. */
const NO_PURGE: Sabotage["feed"] = (feed, role) => (role !== "auditor" ? feed
  : altered(feed, { purge: () => Promise.resolve() }));

/** "Publish these again" is never sent. */
const NEVER_AGAIN: Sabotage["feed"] = (feed, role) => (role !== "site" ? feed : altered(feed, {
  ask: (subject, question, timeoutMs) => (Buffer.from(question).toString("utf8").includes("\"again\"")
    ? Promise.resolve(Buffer.from(JSON.stringify({ ok: true, output: { accepted: 1 } })))
    : feed.ask(subject, question, timeoutMs)),
}));

/** Rows that are put right are not kept first. */
const NO_DRIFT_NOTES = atSite((write) => ({
  insert: async (table, inserted) => {
    if (table.name !== "holdfast_drift") await write.insert(table, inserted);
  },
}));

/** Every row that is written is logged, as somebody might do while looking for something. */
const LOGS_ROWS: Sabotage["rows"] = (rows, _role, log) => alteredWrites(rows, (write) => ({
  insert: async (table, inserted) => {
    log.debug("rows are inserted", { table: table.name, rows: JSON.stringify(inserted) });
    await write.insert(table, inserted);
  },
}));

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
  { name: "heartbeats are not heard", seedsMax: 400, sabotage: { ...SOUND, feed: siteWithout(HEARTBEAT) } },
  { name: "manifests are not looked at", seedsMax: 400, sabotage: { ...SOUND, feed: siteWithout(MANIFEST) } },
  { name: "epochs mean nothing to a site", seedsMax: 400, sabotage: { ...SOUND, feed: ONE_EPOCH } },
  { name: "an image of an older epoch counts as said", seedsMax: 400, sabotage: { ...SOUND, feed: EQUAL_ACROSS_EPOCHS } },
  { name: "tombstones are collected without raising the floor", seedsMax: 400,
    sabotage: { ...SOUND, feed: NO_FLOOR, weather: { ...AUDITED, tombstonesKeptMs: 10_000 } } },
  { name: "a new stream counts as filled before it is, and the centre is not asked what is gone", seedsMax: 400,
    sabotage: { ...SOUND, feed: FILLED_AND_GONE, weather: AUDITED } },
  { name: "the audit ignores what is superfluous", seedsMax: 400, sabotage: { ...SOUND, feed: NO_TOMBSTONES, weather: AUDITED } },
  { name: "what the stream's index lost is left there", seedsMax: 400,
    sabotage: { ...SOUND, feed: NO_PURGE, weather: AUDITED } },
  { name: "nothing is asked for again", seedsMax: 400, sabotage: { ...SOUND, feed: NEVER_AGAIN, weather: AUDITED } },
  { name: "rows of a site are not audited", seedsMax: 400, sabotage: { ...SOUND, auditsRows: false, weather: AUDITED } },
  { name: "drift is overwritten without a note", seedsMax: 400, sabotage: { ...SOUND, rows: NO_DRIFT_NOTES, weather: AUDITED } },
  { name: "the guard lets everything through", seedsMax: 400, sabotage: { ...SOUND,
    guard: (options) => ({ ...options, aggregatesMax: 1_000_000 }), weather: { ...AUDITED, tightGuard: true } } },
  { name: "rows are written to the log", seedsMax: 400, sabotage: { ...SOUND, rows: LOGS_ROWS } },
];

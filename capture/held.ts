/**
 * What the guard holds, remembered in the service's own database until a person decides, or the difference is gone: one note
 * per kind, so that every process that compares the kind holds the same thing and a restart forgets nothing.
 *
 *   held      → released: the next comparison may do as much as the note counted, and then the note is gone
 *             → rejected: nothing of the kind is deleted or rewritten but by clients' calls, until the difference is gone
 *             → gone: a comparison finds no difference any more
 *
 * Invariants: a release lets through no more than was shown to the person (and the guard's own allowance beside it); the fault
 * is open exactly while a decision is wanted.
 * Not here: the judgement (guard.ts), who asks for it (scan.ts, audit/, syncd/).
 */
import { wireDatetime } from "../core/clock.ts";
import type { Faults } from "../core/faults.ts";
import type { World } from "../core/world.ts";
import type { RowReader, RowWriter, Rows } from "../rows/rows.ts";
import { declareTable } from "../schemas/define.ts";
import type { Row } from "../schemas/row.ts";
import { BlastGuard, type Blast, type GuardOptions } from "./guard.ts";

export const HELD_TABLE = declareTable("holdfast_held", {
  key: ["kind"],
  columns: { kind: "text", state: "text", code: "text", cause: "text", deletes: "bigint", rewrites: "bigint", live: "bigint",
    reason: "text?", sample: "text?", since: "datetime" },
});

export type HeldState = "held" | "released" | "rejected";

export interface HeldNote {
  readonly kind: string;
  readonly state: HeldState;
  readonly code: string;
  readonly cause: string;
  readonly deletes: number;
  readonly rewrites: number;
  readonly live: number;
  readonly reason: string;
  /** Names of some of the aggregates. */
  readonly sample: readonly string[];
  readonly since: string;
}

/** Names kept with a note, for a person to see what it is about. */
const SAMPLE_MAX = 10;
const NOTES_MAX = 1_000;

function noteOf(row: Row): HeldNote {
  const state = String(row["state"]);
  const sample: unknown = JSON.parse(String(row["sample"] ?? "[]"));
  return { kind: String(row["kind"]), state: state === "released" || state === "rejected" ? state : "held",
    code: String(row["code"]), cause: String(row["cause"]), deletes: Number(row["deletes"]), rewrites: Number(row["rewrites"]),
    live: Number(row["live"]), reason: String(row["reason"] ?? ""), sample: Array.isArray(sample) ? sample.map(String) : [],
    since: String(row["since"]) };
}

/** Every note of a database, by kind. */
export async function listHeld(read: RowReader): Promise<readonly HeldNote[]> {
  return (await read.page(HELD_TABLE, { limit: NOTES_MAX })).map(noteOf);
}

async function heldOf(read: RowReader, kind: string): Promise<HeldNote | undefined> {
  const row = (await read.select(HELD_TABLE, { columns: ["kind"], values: [[kind]] }))[0];
  return row === undefined ? undefined : noteOf(row);
}

/** A person's decision about a kind; the note as it is now, undefined when there is none. */
export async function decideHeld(write: RowWriter, kind: string, state: "released" | "rejected"): Promise<HeldNote | undefined> {
  const row = (await write.lock(HELD_TABLE, { columns: ["kind"], values: [[kind]] }))[0];
  if (row === undefined) return undefined;
  await write.update(HELD_TABLE, [{ ...row, state }], ["state"]);
  return { ...noteOf(row), state };
}

export interface HoldingRooms {
  readonly service: { readonly name: string };
  readonly rows: Rows;
  readonly faults: Faults;
}

const HELD_FAULTS = ["E_BLAST_HELD", "E_CENTRE_EMPTIED"] as const;

/** The guard with its memory. One per service and process. */
export class Holding {
  readonly #rooms: HoldingRooms;
  readonly #world: World;
  readonly #options: GuardOptions;
  readonly #guard: BlastGuard;
  /** Kinds about which this process has raised a fault. */
  readonly #complained = new Set<string>();

  constructor(rooms: HoldingRooms, world: World, options: GuardOptions) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#guard = new BlastGuard(world.clock, options);
  }

  /** Makes the table where it is missing; call once before admit(). */
  prepare(): Promise<void> {
    return this.#rooms.rows.ensureTables([HELD_TABLE]);
  }

  /** May the deletions and rewrites of `blast` be done? `names`: which aggregates, for the note. */
  async admit(blast: Blast, names: readonly string[]): Promise<boolean> {
    const touched = blast.deletes + blast.rewrites;
    const note = await this.#rooms.rows.snapshot((read) => heldOf(read, blast.kind));
    if (touched === 0) {
      if (note !== undefined && blast.cause !== "call") await this.#forget(note);
      return true;
    }
    if (note?.state === "released" && touched <= note.deletes + note.rewrites + this.#options.aggregatesMax) {
      await this.#forget(note);
      this.#world.log.warn("what was held is released and goes on", { kind: blast.kind, aggregates: touched });
      return true;
    }
    if (note?.state === "rejected" && blast.cause !== "call") return false;
    const verdict = this.#guard.judge(blast);
    if (verdict.pass) {
      // Sets are judged whole: what the note was about is no longer all there.
      if (note !== undefined && note.cause === blast.cause) await this.#forget(note);
      return true;
    }
    await this.#hold(blast, verdict, names, note);
    return false;
  }

  /** Ends this process's faults that want no decision any more: another one found the difference gone, or a person decided. */
  async look(): Promise<void> {
    if (this.#complained.size === 0) return;
    const notes = await this.#rooms.rows.snapshot(listHeld);
    for (const kind of this.#complained) {
      if (!notes.some((note) => note.kind === kind && note.state === "held")) this.#content(kind);
    }
  }

  async #hold(blast: Blast, verdict: { readonly code: (typeof HELD_FAULTS)[number]; readonly because: string },
    names: readonly string[], before: HeldNote | undefined): Promise<void> {
    const { kind, cause, deletes, rewrites, live } = blast;
    const row: Row = { kind, state: "held", code: verdict.code, cause, deletes: String(deletes), rewrites: String(rewrites),
      live: String(live), reason: verdict.because, sample: JSON.stringify(names.slice(0, SAMPLE_MAX)),
      since: before?.since ?? wireDatetime(this.#world.clock.nowMs()) };
    await this.#rooms.rows.transaction(async (write) => {
      const stored = (await write.lock(HELD_TABLE, { columns: ["kind"], values: [[kind]] }))[0];
      if (stored === undefined) await write.insert(HELD_TABLE, [row]);
      else await write.update(HELD_TABLE, [row], Object.keys(HELD_TABLE.columns).filter((column) => column !== "kind"));
    });
    this.#complained.add(kind);
    this.#rooms.faults.raise(verdict.code, `${this.#rooms.service.name} ${kind}`, verdict.because,
      { cause, deletes, rewrites, live });
    this.#world.metrics.count("holdfast_held_total", 1, { service: this.#rooms.service.name, kind, cause });
    this.#world.log.error("a difference is too large to be believed and is held", { kind, cause, deletes, rewrites, live,
      code: verdict.code });
  }

  async #forget(note: HeldNote): Promise<void> {
    await this.#rooms.rows.transaction((write) => write.remove(HELD_TABLE, [{ kind: note.kind }]));
    this.#content(note.kind);
  }

  #content(kind: string): void {
    this.#complained.delete(kind);
    for (const code of HELD_FAULTS) this.#rooms.faults.clear(code, `${this.#rooms.service.name} ${kind}`);
  }
}

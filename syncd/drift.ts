/**
 * What the row audit overwrote: somebody changed rows at the site past Holdfast, and may want to know what became of them. Kept
 * in the service's own database, because it holds what those rows held, secrets too, and is as well guarded there as they were.
 *
 *   found → repaired   the rows are as the image says
 *         → left       the database refused the repair, or the aggregate changed meanwhile; the next pass looks again
 *
 * Invariants: a note is stored before its rows are overwritten; at most keptMax notes, the oldest go first; ids rise with time
 * within one process.
 * Not here: finding drift (row-compare.ts), repairing it (row-audit.ts), showing it (operations.ts).
 */
import { wireDatetime } from "../core/clock.ts";
import type { World } from "../core/world.ts";
import type { RowReader, RowWriter } from "../rows/rows.ts";
import { declareTable } from "../schemas/define.ts";
import type { ImageRows, Row } from "../schemas/row.ts";

export const DRIFT_TABLE = declareTable("holdfast_drift", {
  key: ["id"],
  columns: { id: "text", name: "text?", found: "datetime", effect: "text", before: "text?", state: "text" },
});

/** Notes kept of one service; older ones make room. */
export const DRIFT_KEPT_MAX = 10_000;
/** Overwritten rows of one aggregate longer than this, as JSON, are noted without their content. */
const BEFORE_CHARACTERS_MAX = 256 * 1024;

/** changed: rows differ from the image; missing: the aggregate has no rows; superfluous: rows that no image accounts for. */
export type DriftEffect = "changed" | "missing" | "superfluous";
export type DriftState = "found" | "repaired" | "left";

/** One finding. `before`: rows by table that a repair overwrites. */
export interface DriftFinding {
  readonly name: string;
  readonly effect: DriftEffect;
  readonly before: ImageRows;
}

export interface DriftNote {
  readonly id: string;
  readonly name: string;
  readonly found: string;
  readonly effect: string;
  readonly state: string;
  /** Undefined when it was too long to keep. */
  readonly before: ImageRows | undefined;
}

/** The notes of one service at one site. */
export class DriftNotes {
  readonly #world: World;
  readonly #keptMax: number;
  #made = 0;

  constructor(world: World, keptMax: number) {
    this.#world = world;
    this.#keptMax = keptMax;
  }

  /** Notes findings as `state` and makes room for them; their ids, in order. */
  async note(write: RowWriter, findings: readonly DriftFinding[], state: DriftState): Promise<readonly string[]> {
    const kept = findings.slice(-this.#keptMax);
    const found = wireDatetime(this.#world.clock.nowMs());
    const rows = kept.map(({ name, effect, before }): Row => {
      const written = JSON.stringify(before);
      if (written.length > BEFORE_CHARACTERS_MAX) {
        this.#world.log.warn("overwritten rows are too long to be kept", { key: name, characters: written.length });
      }
      return { id: this.#nextId(found), name, found, effect, state,
        before: written.length > BEFORE_CHARACTERS_MAX ? null : written };
    });
    await this.#makeRoom(write, rows.length);
    await write.insert(DRIFT_TABLE, rows);
    return rows.map((row) => String(row["id"]));
  }

  /** Time first; then a counter for one moment, and chance for two daemons in one moment. */
  #nextId(found: string): string {
    this.#made = (this.#made + 1) % 1_000_000;
    return `${found}-${String(this.#made).padStart(6, "0")}-${this.#world.random.id().slice(0, 8)}`;
  }

  /** Drift is rare, so its notes are counted when there is some, in pages of their keys. */
  async #makeRoom(write: RowWriter, coming: number): Promise<void> {
    const held: Row[] = [];
    for (let after: Row | undefined; ; after = held.at(-1)) {
      const page = await write.page(DRIFT_TABLE, { after, limit: 1_000 }, ["id"]);
      held.push(...page);
      if (page.length < 1_000) break;
    }
    const superfluous = held.length + coming - this.#keptMax;
    if (superfluous > 0) await write.remove(DRIFT_TABLE, held.slice(0, superfluous));
  }
}

/** What became of noted findings. Notes that had to make room meanwhile are not an error. */
export async function settleNotes(write: RowWriter, ids: readonly string[], state: DriftState): Promise<void> {
  await write.update(DRIFT_TABLE, ids.map((id) => ({ id, state })), ["state"]);
}

/** At most `limit` notes after the one called `after`, oldest first. */
export async function listDrift(read: RowReader, after: string | undefined, limit: number): Promise<readonly DriftNote[]> {
  const rows = await read.page(DRIFT_TABLE, { after: after === undefined ? undefined : { id: after }, limit });
  return rows.map((row) => ({ id: String(row["id"]), name: String(row["name"]), found: String(row["found"]),
    effect: String(row["effect"]), state: String(row["state"]), before: beforeOf(row["before"]) }));
}

function beforeOf(written: Row[string] | undefined): ImageRows | undefined {
  return typeof written === "string" ? JSON.parse(written) as ImageRows : undefined;
}

/**
 * What sites ask the auditor over the stream server:
 *
 *   leaves {bucket, after?}    → {epoch, asOf, leaves: [[name, epoch, sequence, digest]…], next?}
 *                                the live aggregates of a bucket, as the stream has them; next: pass it as `after`
 *   again {names, epoch?}      → {accepted}: publishes these even if the stream has the same image, because the site holds a
 *                                newer version than the stream does. epoch: the site's own.
 *   gone {names, epoch}        → {gone}: those of them that the central database does not have: asked before a site removes
 *                                what the stream does not have
 *
 * Invariants: nothing is answered from an index that is not complete; a site's question can make work, never a change: what is
 * published is read from the central database. Bounds: names in a question, aggregates said again and looked for in a minute
 * over all sites, and how often and how far a site's word may raise the epoch: a stolen password of one site must not keep all
 * others busy.
 */
import { OperatingError } from "../core/errors.ts";
import type { Input, JsonValue, Operations } from "../core/operation.ts";
import type { World } from "../core/world.ts";
import type { CaptureRoom } from "../capture/capture.ts";
import { readImages } from "../rows/footprint.ts";
import type { Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import { BUCKETS } from "../schemas/manifest.ts";
import { keyFromText, keyText, type AggregateKey } from "../schemas/row.ts";
import type { StreamIndex } from "./stream-index.ts";

export interface QuestionRooms {
  readonly service: Service;
  readonly rows: Rows;
  readonly index: StreamIndex;
  readonly capture: Pick<CaptureRoom, "era" | "force" | "noteEpoch">;
  readonly isComplete: () => boolean;
}

/** Leaves in one answer: about 150 bytes each. */
const LEAVES_MAX = 2_000;
/** Names longer than any database allows, together, still fit an answer. */
const LEAVES_CHARACTERS_MAX = 600_000;
const NAMES_MAX = 1_000;
const AGAIN_A_MINUTE_MAX = 20_000;
const LOOKED_FOR_A_MINUTE_MAX = 200_000;
const MINUTE_MS = 60_000;
/** A site's word about a higher epoch is taken this often, and this far above ours. */
const EPOCH_WORD_EVERY_MS = 60 * MINUTE_MS;
const EPOCH_WORD_MOST = 1_000;

const TOO_MANY_NAMES = `"names" has to be a list of at most ${NAMES_MAX}`;

function refuse(message: string): OperatingError {
  return new OperatingError("E_OPERATION_INPUT", message);
}

/** So many of something in a minute, over all sites. */
class Allowance {
  readonly #most: number;
  #minuteMs = 0;
  #used = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** How many of `wanted` are granted. */
  take(wanted: number, nowMs: number): number {
    if (nowMs - this.#minuteMs >= MINUTE_MS) [this.#minuteMs, this.#used] = [nowMs, 0];
    const granted = Math.min(wanted, Math.max(0, this.#most - this.#used));
    this.#used += granted;
    return granted;
  }
}

/** The questions that one auditor answers. */
export class Questions {
  readonly #rooms: QuestionRooms;
  readonly #world: World;
  readonly #again = new Allowance(AGAIN_A_MINUTE_MAX);
  readonly #lookedFor = new Allowance(LOOKED_FOR_A_MINUTE_MAX);
  #epochWordMs: number | undefined;

  constructor(rooms: QuestionRooms, world: World) {
    this.#rooms = rooms;
    this.#world = world;
  }

  operations(): Operations {
    return new Map([["leaves", (input: Input) => this.#leaves(input)], ["again", (input: Input) => this.#sayAgain(input)],
      ["gone", (input: Input) => this.#gone(input)]]);
  }

  #leaves(input: Input): Promise<JsonValue> {
    const { bucket, after = "" } = input;
    if (typeof bucket !== "number" || !Number.isInteger(bucket) || bucket < 0 || bucket >= BUCKETS) {
      return Promise.reject(refuse(`"bucket" has to be a number from 0 to ${BUCKETS - 1}`));
    }
    if (typeof after !== "string") return Promise.reject(refuse('"after" has to be a name'));
    const { era } = this.#rooms.capture;
    if (era === undefined || !this.#rooms.isComplete()) {
      return Promise.reject(new OperatingError("E_ASK_UNANSWERED", "the auditor is still reading the stream"));
    }
    const found = this.#rooms.index.leavesOf(bucket, after, LEAVES_MAX);
    const leaves: JsonValue[] = [];
    let characters = 0;
    for (const { name, epoch, sequence, digest } of found) {
      characters += name.length + digest.length;
      if (leaves.length > 0 && characters > LEAVES_CHARACTERS_MAX) break;
      leaves.push([name, epoch, sequence, digest]);
    }
    const isLast = leaves.length === found.length && found.length < LEAVES_MAX;
    const next = isLast ? undefined : found[leaves.length - 1]?.name;
    const asOf = this.#rooms.index.reached;
    return Promise.resolve({ epoch: era.epoch, asOf, leaves, ...(next === undefined ? {} : { next }) });
  }

  #sayAgain(input: Input): Promise<JsonValue> {
    const { names, epoch } = input;
    if (!Array.isArray(names) || names.length > NAMES_MAX) return Promise.reject(refuse(TOO_MANY_NAMES));
    if (typeof epoch === "number") this.#hearEpoch(epoch);
    const keys = names.flatMap((name: JsonValue) => this.#keyIn(name) ?? []);
    const accepted = keys.slice(0, this.#again.take(keys.length, this.#world.clock.monotonicMs()));
    this.#world.metrics.count("holdfast_said_again_total", accepted.length, { service: this.#rooms.service.name });
    if (accepted.length > 0) void this.#rooms.capture.force(accepted);
    return Promise.resolve({ accepted: accepted.length });
  }

  /** What cannot be asked about is not said to be gone. */
  async #gone(input: Input): Promise<JsonValue> {
    const { names, epoch } = input;
    if (!Array.isArray(names) || names.length > NAMES_MAX) throw refuse(TOO_MANY_NAMES);
    const { service, rows, capture } = this.#rooms;
    if (capture.era === undefined || capture.era.epoch !== epoch) {
      throw new OperatingError("E_ASK_UNANSWERED", "the auditor is of another epoch");
    }
    const keys = names.flatMap((name: JsonValue) => this.#keyIn(name) ?? []);
    if (this.#lookedFor.take(keys.length, this.#world.clock.monotonicMs()) < keys.length) {
      throw new OperatingError("E_ASK_UNANSWERED", "too much was asked about in this minute");
    }
    const images = await rows.snapshot((read) => readImages(read, service, keys));
    const gone = keys.map(keyText).filter((name) => {
      const image = images.get(name);
      return image !== undefined && image.rows === undefined;
    });
    return { gone };
  }

  #keyIn(name: JsonValue): AggregateKey | undefined {
    if (typeof name !== "string" || name === "") return undefined;
    const key = keyFromText(name);
    return this.#rooms.service.kinds.get(key.kind)?.key.length === key.values.length && keyText(key) === name ? key : undefined;
  }

  /** The site is of a later epoch than we know: database and stream were both restored to an older state. */
  #hearEpoch(epoch: number): void {
    const ours = this.#rooms.capture.era?.epoch ?? 0;
    if (!Number.isSafeInteger(epoch) || ours === 0 || epoch <= ours) return;
    const nowMs = this.#world.clock.monotonicMs();
    const isTooOften = this.#epochWordMs !== undefined && nowMs - this.#epochWordMs < EPOCH_WORD_EVERY_MS;
    this.#world.log.error("a site is of a later epoch than the centre", { service: this.#rooms.service.name, epoch, ours });
    if (isTooOften || epoch > ours + EPOCH_WORD_MOST) return;
    this.#epochWordMs = nowMs;
    this.#rooms.capture.noteEpoch(epoch);
  }
}

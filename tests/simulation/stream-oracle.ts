/**
 * Watches the stream itself: the images of a subject never contradict the order of the states that the centre's database had
 * (I1), no image shows a state that never was, and no tombstone is collected before everybody could know (A6). After the stream
 * lost something, what is left counts from there.
 */
import { present } from "../../core/assert.ts";
import type { FeedMessage } from "../../feed/feed.ts";
import type { MemoryStream } from "../../feed/memory-stream.ts";
import type { Service } from "../../schemas/define.ts";
import { decodeHeartbeat } from "../../schemas/manifest.ts";
import { compareVersions, type Version } from "../../schemas/position.ts";
import type { Row } from "../../schemas/row.ts";
import { GONE, stateOf, type CentreHistory } from "./history.ts";

/** What an image message says: the aggregate's name and its state; undefined for the auditor's own messages. */
export function saidBy(service: Service, message: FeedMessage): { readonly name: string; readonly state: string } | undefined {
  const name = message.subject.split(".").slice(4).join(".");
  if (name.startsWith("_")) return undefined;
  const kind = present(service.kinds.get(present(name.split(".")[0], name)), name);
  const { rows } = JSON.parse(Buffer.from(message.payload).toString("utf8")) as { rows?: Record<string, readonly Row[]> };
  return { name, state: stateOf(service, kind, rows) };
}

/** One per run; ask `wrong` now and then. */
export class StreamOracle {
  readonly #service: Service;
  readonly #stream: MemoryStream;
  readonly #history: CentreHistory;
  readonly #readsMayBeStale: boolean;
  readonly #places = new WeakMap<FeedMessage, number>();
  readonly #floors = new Map<string, number>();
  readonly wrong: string[] = [];
  /** Rises whenever the stream lost or forgot something: orders seen before mean nothing after. */
  regressions = 0;
  #seen = 0;
  /** The highest floor and the highest epoch that any heartbeat said. */
  #floor: Version = { epoch: 0, sequence: 0 };
  #epoch = 0;

  constructor(service: Service, stream: MemoryStream, history: CentreHistory, readsMayBeStale: boolean) {
    this.#service = service;
    this.#stream = stream;
    this.#history = history;
    this.#readsMayBeStale = readsMayBeStale;
    stream.listen({ changed: () => this.#look(), broken: () => this.#lookAgain() });
  }

  /** The live aggregates of the stream and their states. */
  states(): ReadonlyMap<string, string> {
    const states = new Map<string, string>();
    for (const message of this.#stream.above(0, ">")) {
      const said = saidBy(this.#service, message);
      if (said !== undefined && said.state !== GONE) states.set(said.name, said.state);
    }
    return states;
  }

  /** Live aggregates whose image is of an older epoch than the auditor's: its sequence means nothing to whoever compares it. */
  unsaid(): readonly string[] {
    return [...this.#stream.above(0, ">")].flatMap((message) => {
      const said = saidBy(this.#service, message);
      return said !== undefined && said.state !== GONE && Number(message.headers["Hf-Epoch"]) < this.#epoch ? [said.name] : [];
    });
  }

  /** Somebody is about to purge a subject. */
  purging(subject: string, sequence: number): void {
    const message = this.#stream.last(subject);
    if (message === undefined || message.sequence > sequence) return;
    const version = { epoch: Number(message.headers["Hf-Epoch"]), sequence: message.sequence };
    if (message.headers["Hf-Deleted"] !== "1") this.wrong.push(`A6: the live image of ${subject} is purged`);
    else if (compareVersions(this.#floor, version) < 0) {
      this.wrong.push(`A6: the tombstone of ${subject} is purged above the floor`);
    }
  }

  #hear(message: FeedMessage): void {
    if (!message.subject.endsWith("._hb")) return;
    const { epoch, floor } = decodeHeartbeat(message.subject, message.payload);
    this.#epoch = Math.max(this.#epoch, epoch);
    if (compareVersions(floor, this.#floor) > 0) this.#floor = floor;
  }

  #look(): void {
    for (const message of this.#stream.above(this.#seen, ">")) {
      this.#seen = message.sequence;
      const said = saidBy(this.#service, message);
      if (said === undefined) {
        this.#hear(message);
        continue;
      }
      const from = this.#readsMayBeStale ? 0 : (this.#floors.get(said.name) ?? 0);
      const place = this.#history.placeOf(said.name, said.state, from);
      if (place === undefined) {
        const ever = this.#history.placeOf(said.name, said.state, 0) !== undefined;
        const what = ever ? "older than the one before it" : "of no state that ever was";
        this.wrong.push(`I1: image ${message.sequence} of ${said.name} is ${what}`);
        continue;
      }
      this.#places.set(message, place);
      this.#floors.set(said.name, place);
    }
  }

  /** After a restart or a loss: what is there now, and where the sequences stand. */
  #lookAgain(): void {
    const before = this.#seen;
    this.#seen = this.#stream.lastSequence();
    if (this.#seen < before) this.regressions += 1;
    this.#floors.clear();
    for (const message of this.#stream.above(0, ">")) {
      const said = saidBy(this.#service, message);
      if (said !== undefined) this.#floors.set(said.name, this.#places.get(message) ?? 0);
    }
  }
}

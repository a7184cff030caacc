/**
 * Many writers at once, faster than any API: each changes some users of its own in the central database, past every service, and
 * publishes them by the product's own capture; and so on until it is stopped. What the stream server acknowledged is
 * remembered, so that afterwards its own words can be held against it.
 */
import { Faults } from "../../core/faults.ts";
import { present } from "../../core/assert.ts";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import type { Feed, Publication, Published } from "../../feed/feed.ts";
import { SCOPE_ALL } from "../../feed/subjects.ts";
import type { Rows } from "../../rows/rows.ts";
import { keystone } from "../../schemas/keystone.ts";
import type { AggregateKey, Row } from "../../schemas/row.ts";
import { quietWorld } from "./fleet-compare.ts";

/** Users that one writer changes by one statement, and publishes together. */
const STRIDE = 8;
const USER_TABLE = present(keystone.tables.get("user"), "Keystone has users");

export interface WritersRooms {
  readonly rows: Rows;
  readonly feed: Feed;
}

/** The feed, with every acknowledgement written down: the highest sequence of each subject. */
function noting(feed: Feed, acknowledged: Map<string, number>): Feed {
  const publish = async (publication: Publication): Promise<Published> => {
    const published = await feed.publish(publication);
    if (published.stored) {
      acknowledged.set(publication.subject, Math.max(published.sequence, acknowledged.get(publication.subject) ?? 0));
    }
    return published;
  };
  return { stream: feed.stream, publish, ensureStream: () => feed.ensureStream(), state: () => feed.state(),
    last: (subject) => feed.last(subject), read: (options, signal) => feed.read(options, signal),
    report: (subject, payload) => feed.report(subject, payload), purge: (subject, sequence) => feed.purge(subject, sequence),
    ask: (subject, question, timeoutMs) => feed.ask(subject, question, timeoutMs),
    serve: (subject, answer) => feed.serve(subject, answer), disconnected: () => feed.disconnected(), close: () => feed.close() };
}

/** Writers over the users `ids`; make, run(), pause() and go on() as often as wanted, stop(). */
export class Writers {
  readonly #rooms: WritersRooms;
  readonly #capture: CaptureRoom;
  readonly #acknowledged = new Map<string, number>();
  readonly #users: readonly Row[];
  readonly #count: number;
  #turn = 0;
  #written = 0;
  #stopping = false;
  #working: Promise<unknown> = Promise.resolve();

  /** @param users  rows of the table `user`, whole. @param count  how many writers. */
  constructor(rooms: WritersRooms, users: readonly Row[], count: number) {
    this.#rooms = rooms;
    this.#users = users;
    this.#count = count;
    this.#capture = new CaptureRoom({ service: keystone, scope: SCOPE_ALL, rows: rooms.rows,
      feed: noting(rooms.feed, this.#acknowledged), faults: new Faults(quietWorld.clock) }, quietWorld, CAPTURE_DEFAULTS);
  }

  /** Images published by writers so far. */
  get written(): number {
    return this.#written;
  }

  /** What the stream server has acknowledged so far: the highest sequence of each subject. */
  acknowledged(): ReadonlyMap<string, number> {
    return new Map(this.#acknowledged);
  }

  async start(): Promise<void> {
    await this.#capture.start();
    this.resume();
  }

  /** Starts the writers again after pause(). */
  resume(): void {
    this.#stopping = false;
    this.#working = Promise.all(Array.from({ length: this.#count }, (_, place) => this.#write(place)));
  }

  /** No new writes; resolves when those under way are published, which may need the stream server. */
  async pause(): Promise<void> {
    this.#stopping = true;
    await this.#working;
  }

  async stop(): Promise<void> {
    await this.pause();
    await this.#capture.stop();
  }

  /** Tells the writers to end what they are doing, without waiting for it. */
  halt(): void {
    this.#stopping = true;
  }

  async #write(place: number): Promise<void> {
    const own = this.#users.filter((_, position) => position % this.#count === place);
    for (let from = 0; !this.#stopping; from = (from + STRIDE) % own.length) {
      const some = own.slice(from, from + STRIDE);
      const turn = this.#turn += 1;
      const rows = some.map((row): Row => ({ ...row, extra: JSON.stringify({ turn, email: `writer ${place}` }) }));
      await this.#rooms.rows.transaction((write) => write.update(USER_TABLE, rows, ["extra"]));
      const keys = some.map((row): AggregateKey => ({ kind: "user", values: [String(row["id"])] }));
      await this.#capture.publish(keys);
      this.#written += keys.length;
    }
  }
}

/**
 * Goal: the stream's newest image of an aggregate is never older than the rows, also when two proxies publish the same
 * aggregate with different memories of the stream (I1). Method: two publishers on one database and one stream, step by step.
 */
import assert from "node:assert/strict";
import { Publisher, PUBLISH_DEFAULTS, type Wish } from "../../capture/publish.ts";
import { present } from "../../core/assert.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom } from "../../core/random.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { memoryFeed } from "../../feed/memory.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { RowWriter } from "../../rows/rows.ts";
import type { AggregateKey } from "../../schemas/row.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const group = present(toy.tables.get("group"), "group");
const KEY: AggregateKey = { kind: "group", values: ["g"] };
const SUBJECT = "os.v1.toy.all.group.g";

class Stage {
  readonly clock = new VirtualClock();
  readonly stream = new MemoryStream(toy.name, this.clock);
  readonly rows = memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION] });
  readonly #stopping = new AbortController();
  #publishers = 0;

  readonly faults = new Faults(this.clock);

  publisher(maxImageBytes?: number): Publisher {
    const world = { clock: this.clock, random: seededRandom((this.#publishers += 1)), log: silentLog, metrics: noMetrics };
    const feed = memoryFeed(this.stream, this.clock, maxImageBytes === undefined ? {} : { maxImageBytes });
    const rooms = { service: toy, scope: "all", rows: this.rows, feed, faults: this.faults,
      era: () => ({ epoch: 1, schema: TOY_REVISION }), sawEpoch: () => undefined, mayVanish: () => Promise.resolve(true) };
    const publisher = new Publisher(rooms, world, PUBLISH_DEFAULTS);
    void publisher.run(this.#stopping.signal);
    return publisher;
  }

  async write(work: (write: RowWriter) => Promise<void>): Promise<void> {
    await this.rows.transaction(work);
  }

  /** Publishes and waits for it in virtual time. */
  async publish(publisher: Publisher, wish: Wish = "look"): Promise<void> {
    let isDone = false;
    void publisher.publish([KEY], wish).then(() => {
      isDone = true;
    });
    assert(await this.clock.runUntil(() => isDone, 60_000), "the publish ends");
  }

  isDeleted(): boolean {
    return present(this.stream.last(SUBJECT), "a message").headers["Hf-Deleted"] === "1";
  }

  stop(): void {
    this.#stopping.abort();
  }
}

describe("publishing one aggregate from two proxies", () => {
  let stage: Stage;
  beforeEach(() => {
    stage = new Stage();
    stage.stream.ensure();
  });
  afterEach(() => stage.stop());

  it("says in a header what takes authority away, so that a reader need not open it", async () => {
    const event = present(toy.tables.get("event"), "event");
    const publisher = stage.publisher();
    await stage.write((write) => write.insert(event, [{ id: 7, user_id: null, at: "2026-01-01T00:00:00.000000" }]));
    await stage.write((write) => write.insert(group, [{ id: "g", name: "g" }]));
    let isDone = false;
    void publisher.publish([KEY, { kind: "event", values: ["7"] }], "look").then(() => {
      isDone = true;
    });
    assert(await stage.clock.runUntil(() => isDone, 60_000), "the publish ends");
    assert.equal(stage.stream.last("os.v1.toy.all.event.7")?.headers["Hf-Urgent"], "1");
    assert.equal(stage.stream.last(SUBJECT)?.headers["Hf-Urgent"], undefined);
  });

  it("says it again when rows went there and back and another proxy said something else between", async () => {
    const [first, second] = [stage.publisher(), stage.publisher()];
    await stage.write((write) => write.insert(group, [{ id: "g", name: "g" }]));
    await stage.publish(first);
    await stage.write((write) => write.remove(group, [{ id: "g" }]));
    await stage.publish(second);
    assert(stage.isDeleted());
    await stage.write((write) => write.insert(group, [{ id: "g", name: "g" }]));
    await stage.publish(first);
    assert(!stage.isDeleted(), "the first proxy remembers an equal image, which is no longer the newest");
  });

  it("is not taken in by an acknowledgement of what was said long ago", async () => {
    const [first, second] = [stage.publisher(), stage.publisher()];
    await stage.write((write) => write.insert(group, [{ id: "g", name: "g" }]));
    await stage.publish(first);
    await stage.publish(second);
    await stage.write((write) => write.remove(group, [{ id: "g" }]));
    await stage.publish(first);
    await stage.write((write) => write.insert(group, [{ id: "g", name: "g" }]));
    await stage.publish(first);
    await stage.write((write) => write.remove(group, [{ id: "g" }]));
    await stage.publish(second);
    assert(stage.isDeleted(), "the second proxy expects what the first one expected when it said the same");
  });

  it("sets an image that is too large aside with a fault that names it, and ends the fault when it fits again", async () => {
    const publisher = stage.publisher(500);
    await stage.write((write) => write.insert(group, [{ id: "g", name: "n".repeat(1_000) }]));
    await stage.publish(publisher);
    assert.deepEqual(stage.faults.list().map((fault) => [fault.code, fault.about]), [["E_IMAGE_TOO_LARGE", "group.g"]]);
    await stage.write((write) => write.update(group, [{ id: "g", name: "n" }], ["name"]));
    await stage.publish(publisher);
    assert.deepEqual(stage.faults.list(), []);
    assert(!stage.isDeleted());
  });

  it("calls nothing deleted that the stream has never spoken of, unless a call asked for it", async () => {
    const publisher = stage.publisher();
    await stage.publish(publisher);
    assert.equal(stage.stream.last(SUBJECT), undefined);
    await stage.publish(publisher, "call");
    assert(stage.isDeleted());
  });

  it("publishes nothing when nothing changed", async () => {
    const [first, second] = [stage.publisher(), stage.publisher()];
    await stage.write((write) => write.insert(group, [{ id: "g", name: "g" }]));
    await stage.publish(first);
    await stage.publish(second);
    await stage.publish(first);
    assert.equal(stage.stream.lastSequence(), 1);
  });
});

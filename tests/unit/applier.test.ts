/**
 * Goal: one bad change is set aside and all others go on (S7); too much that waits stops the reading and loses nothing (S11);
 * what waited when a process ended is tried again by the next. Method: the toy service on the memory twin, with a database that
 * refuses one value.
 */
import assert from "node:assert/strict";
import { OperatingError } from "../../core/errors.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { present } from "../../core/assert.ts";
import { seededRandom } from "../../core/random.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import { changeOf, encodeChange } from "../../schemas/change.ts";
import { canonicalImage, type Row } from "../../schemas/row.ts";
import { Applier, APPLIER_DEFAULTS, MovedError, type ApplierOptions } from "../../syncd/applier.ts";
import { LEDGER_TABLES, movePosition, QUARANTINE_TABLE, readPosition,
  startPosition, type SitePosition } from "../../syncd/ledger.ts";
import type { Received } from "../../syncd/received.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { altered } from "../simulation/altered.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const POISON = "poison";
const signal = new AbortController().signal;

/** A database that cannot hold the name "poison", as one with another character set could not. */
function picky(rows: Rows, isPicky: () => boolean): Rows {
  const refuse = (write: RowWriter): RowWriter => altered(write, {
    insert: async (table, inserted) => {
      if (isPicky() && inserted.some((row) => row["name"] === POISON)) throw new OperatingError("E_ROWS_REFUSED",
        "not representable");
      await write.insert(table, inserted);
    },
  });
  return altered(rows, { transaction: <T>(work: (write: RowWriter) => Promise<T>) =>
    rows.transaction((write) => work(refuse(write))) });
}

function received(kind: string, id: string, sequence: number, rows?: Record<string, Row[]>): Received {
  const change = changeOf(canonicalImage(toy, { kind, values: id.split("/") }, rows), TOY_REVISION);
  return { ...change, version: { epoch: 1, sequence }, payload: rows === undefined ? undefined
    : Buffer.from(encodeChange(change)).toString() };
}
const group = (name: string, sequence: number): Received => received("group", `id-${name}-${sequence}`, sequence,
  { group: [{ id: `id-${name}-${sequence}`, name }] });
const orphan = (sequence: number): Received => received("membership", `u${sequence}/g`, sequence,
  { membership: [{ user_id: `u${sequence}`, group_id: "g" }] });
const at = (sequence: number): SitePosition => ({ epoch: 1, sequence, mode: "tail" });

describe("carrying changes into the database", () => {
  let rows: Rows;
  let faults: Faults;
  let isPicky: boolean;
  const clock = new VirtualClock();

  const applier = async (options: Partial<ApplierOptions> = {}, position = at(0)): Promise<Applier> => {
    const world = { clock, random: seededRandom(1), log: silentLog, metrics: noMetrics };
    const rooms = { service: toy, rows, stream: "HOLDFAST_TOY", isOutdated: () => Promise.resolve(false) };
    const made = new Applier(rooms, position, faults, world, { ...APPLIER_DEFAULTS, ...options }, () => undefined);
    await made.recall(signal);
    return made;
  };
  const groups = async (): Promise<number> =>
    (await rows.snapshot((read) => read.page(present(toy.tables.get("group"), "group"), { limit: 1_000 }))).length;

  beforeEach(async () => {
    isPicky = true;
    faults = new Faults(clock);
    rows = picky(memoryRows([...toy.tables.values(), ...LEDGER_TABLES]), () => isPicky);
    await rows.transaction((write) => startPosition(write, "HOLDFAST_TOY", at(0)));
  });

  it("quarantines the one change that the database refuses, whole, and applies all others", async () => {
    const names = Array.from({ length: 20 }, (_, index) => (index === 13 ? POISON : `name ${index}`));
    const site = await applier();
    await site.carry({ changes: names.map((name, index) => group(name, index + 1)), unreadable: [] }, at(20), signal);
    assert.equal(await groups(), 19);
    assert.deepEqual(site.position, at(20));
    assert.equal(site.quarantined, 1);
    assert.deepEqual(faults.list().map((fault) => [fault.code, fault.about]), [["E_ROWS_REFUSED", `group.id-${POISON}-14`]]);
    const [kept] = await rows.snapshot((read) => read.page(QUARANTINE_TABLE, { limit: 10 }));
    assert(String(kept?.["payload"]).includes(POISON), "the change is kept whole");
  });

  it("gives what was quarantined another try when it starts again", async () => {
    const site = await applier();
    await site.carry({ changes: [group(POISON, 1)], unreadable: [] }, at(1), signal);
    assert.equal(await groups(), 0);
    isPicky = false;
    const next = await applier({}, present(await rows.snapshot((read) => readPosition(read, "HOLDFAST_TOY")), "it was stored"));
    assert.equal(await groups(), 1);
    assert.equal(next.quarantined, 0);
  });

  it("stops believing its memory when the database lost the newest commits, also while nothing arrives", async () => {
    const site = await applier();
    await site.carry({ changes: [group("a", 1)], unreadable: [] }, at(1), signal);
    await site.carry({ changes: [group("b", 2)], unreadable: [] }, at(2), signal);
    await site.verifyPosition();
    await rows.transaction((write) => movePosition(write, "HOLDFAST_TOY", at(1)));
    await assert.rejects(site.verifyPosition(), MovedError);
    await assert.rejects(site.carry({ changes: [group("c", 3)], unreadable: [] }, at(3), signal), MovedError);
    assert.deepEqual(faults.list().map((fault) => fault.code), ["E_SITE_CONTENDED"]);
  });

  it("notices a lost commit that had left the position where it was", async () => {
    const site = await applier();
    await site.carry({ changes: [group("a", 1)], unreadable: [] }, at(1), signal);
    const before = present(await rows.snapshot((read) => readPosition(read, "HOLDFAST_TOY")), "it was stored");
    await site.repair([group("a", 1)], signal);
    await site.verifyPosition();
    await rows.transaction((write) => movePosition(write, "HOLDFAST_TOY", before, before.turn));
    await assert.rejects(site.verifyPosition(), MovedError);
    await assert.rejects(site.carry({ changes: [group("c", 3)], unreadable: [] }, at(3), signal), MovedError);
  });

  it("says when too much waits, and applies all of it when the parent comes", async () => {
    const site = await applier({ parkedMax: 5 });
    await site.carry({ changes: [1, 2, 3, 4, 5].map(orphan), unreadable: [] }, at(5), signal);
    assert.equal(site.parked, 5);
    assert.match(site.overfull ?? "", /parkedMax/);
    const parents = [1, 2, 3, 4, 5].map((sequence) => received("user", `u${sequence}`, sequence + 10,
      { user: [{ id: `u${sequence}`, domain_id: "d", name: `n${sequence}` }] }));
    const domain = received("domain", "d", 20, { domain: [{ id: "d", name: "d" }] });
    const parentGroup = received("group", "g", 21, { group: [{ id: "g", name: "g" }] });
    await site.carry({ changes: [...parents, domain, parentGroup], unreadable: [] }, at(21), signal);
    assert.equal(site.parked, 0);
    assert.equal(site.overfull, undefined);
  });

  it("raises a fault with its code when a change has waited too long, and ends it when the change is applied", async () => {
    const site = await applier({ parkedFaultMs: 1_000, parkedRetryMs: 100 });
    await site.carry({ changes: [orphan(1)], unreadable: [] }, at(1), signal);
    await clock.pass(2_000);
    await site.tryDue(signal);
    assert.deepEqual(faults.list().map((fault) => fault.code), ["E_PARENT_MISSING"]);
    const parents = [received("domain", "d", 2, { domain: [{ id: "d", name: "d" }] }),
      received("user", "u1", 3, { user: [{ id: "u1", domain_id: "d", name: "n" }] }),
        received("group", "g", 4, { group: [{ id: "g", name: "g" }] })];
    await site.carry({ changes: parents, unreadable: [] }, at(4), signal);
    assert.deepEqual(faults.list(), []);
  });
});

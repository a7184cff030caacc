/**
 * Comparing a site with the centre's manifest, at the moment the position passes it (docs/protocol.md E8): 256 digests say
 * whether everything that is live on the stream was applied here in the same image. Where they differ, leaves say which
 * aggregates; their images are fetched one by one and go through decide and apply like any change.
 *
 * Left for the next manifest: buckets with an image above the manifest's `asOf` (they differ because they are newer), and most
 * of those in which a change waits. What would be removed or rewritten is put before the guard as a whole first. What the
 * site has in a newer version than the stream cannot be put right here: the centre is asked to publish it again.
 *
 * Bounds: repairsMax differences a manifest, the rest by the next; leavesMax leaves in memory; WAITING_BUCKETS_MAX.
 * Not here: what the rows look like (the row audit), how differences are found (findings.ts).
 */
import { isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { askOperation } from "../feed/asking.ts";
import { auditAskSubject, subjectPrefix } from "../feed/subjects.ts";
import { BUCKETS, bucketOf, hashOfName, type Manifest } from "../schemas/manifest.ts";
import { compareVersions } from "../schemas/position.ts";
import { keyFromText } from "../schemas/row.ts";
import { heldKinds, inLanes, isSourceEmptied, removeSurplus, type AdmissionRooms } from "./admission.ts";
import type { Applier } from "./applier.ts";
import { confirmGone } from "./confirm.ts";
import { findDifferences, Findings, standingOf, weigh } from "./findings.ts";
import { readLeaves, type LeafRooms } from "./leaves.ts";
import { readApplied, type AppliedNote } from "./ledger.ts";
import { receive, type Received, type Unreadable } from "./received.ts";
import { kindOfName } from "./tally.ts";

export interface CheckOptions {
  /** Differences that are put right after one manifest. */
  readonly repairsMax: number;
  /** Leaves compared at a time: what bounds the memory of a check. */
  readonly leavesMax: number;
  /** Longest wait for an answer of the auditor. */
  readonly askTimeoutMs: number;
  /** Changes in one transaction. */
  readonly changesMax: number;
}

export const CHECK_DEFAULTS: CheckOptions = { repairsMax: 10_000, leavesMax: 100_000, askTimeoutMs: 5_000, changesMax: 200 };

/** Buckets in which changes wait that are looked into nevertheless: a quarantined change must not blind its bucket for ever. */
const WAITING_BUCKETS_MAX = 16;
const LANES = 32;
/** Names in one question. */
const ASKED_NAMES_MAX = 500;

export interface CheckRooms extends AdmissionRooms, LeafRooms {
  readonly faults: Faults;
}

/** "left": something was not compared, or was not repaired. "resync": too much differs to go about it one by one. */
export type CheckOutcome = "equal" | "left" | "repaired" | "held" | "resync";

/** The checks of one follower. Not to run while anything else commits. */
export class ManifestCheck {
  readonly #rooms: CheckRooms;
  readonly #world: World;
  readonly #options: CheckOptions;
  /** Buckets that had a difference when they were last looked into. */
  readonly #unequal = new Set<number>();
  #resyncAsked = false;

  constructor(rooms: CheckRooms, world: World, options: CheckOptions) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
  }

  /** Compares and repairs. The position has just passed the manifest. @throws what the feed and the database throw */
  async check(manifest: Manifest, applier: Applier, signal: AbortSignal): Promise<CheckOutcome> {
    const outcome = await this.#compare(manifest, applier, signal);
    this.#world.metrics.count("holdfast_manifest_checks_total", 1, { service: this.#rooms.service.name, outcome });
    return outcome;
  }

  async #compare(manifest: Manifest, applier: Applier, signal: AbortSignal): Promise<CheckOutcome> {
    if (manifest.epoch !== applier.position.epoch) return "left";
    await applier.tally.ensure(this.#rooms.rows);
    const differing = applier.tally.differing(manifest.buckets);
    for (const bucket of this.#unequal) if (!differing.includes(bucket)) this.#unequal.delete(bucket);
    const examined = this.#examinable(manifest, applier, differing);
    const findings = new Findings(this.#options.repairsMax);
    const isWhole = examined.length === differing.length && await this.#find(manifest, applier, examined, findings, signal);
    if (signal.aborted) return "left";
    this.#judgeBuckets(examined, findings.buckets);
    if (examined.length > BUCKETS / 2 && findings.count > this.#options.repairsMax && !this.#resyncAsked) {
      this.#resyncAsked = true;
      return "resync";
    }
    const held = await this.#held(applier, findings, isWhole, signal);
    if (signal.aborted) return "left";
    await this.#repair(applier, findings, held, signal);
    if (held.size > 0) return "held";
    this.#resyncAsked = false;
    if (findings.count > 0) return "repaired";
    return isWhole ? "equal" : "left";
  }

  /** Differing buckets that can be looked into now. */
  #examinable({ epoch, asOf }: Manifest, applier: Applier, differing: readonly number[]): readonly number[] {
    const cold = differing.filter((bucket) => {
      const newest = applier.tally.newestIn(bucket);
      return newest.epoch !== epoch || newest.sequence <= asOf;
    });
    if (cold.length === 0) return cold;
    const waiting = new Set<number>();
    for (const name of applier.waitingNames()) waiting.add(bucketOf(hashOfName(name)));
    let looked = 0;
    return cold.filter((bucket) => !waiting.has(bucket) || (looked += 1) <= WAITING_BUCKETS_MAX);
  }

  /** Looks into buckets, as many at a time as memory allows; true when all were looked into for everything. */
  async #find(manifest: Manifest, applier: Applier, buckets: readonly number[], findings: Findings,
    signal: AbortSignal): Promise<boolean> {
    const { leavesMax, askTimeoutMs } = this.#options;
    const atOnce = Math.max(1, Math.floor((BUCKETS * leavesMax) / Math.max(1, manifest.aggregates)));
    // While a sweep is due, what the stream does not have is the sweep's business: it would count twice with the guard.
    const surplusToo = applier.position.mode === "tail";
    for (let from = 0; from < buckets.length && !signal.aborted; from += atOnce) {
      const some = buckets.slice(from, from + atOnce);
      const leaves = await readLeaves(this.#rooms, this.#world, manifest.epoch, some, askTimeoutMs, signal);
      if (leaves === undefined || signal.aborted) return false;
      await findDifferences(this.#rooms, applier, some, leaves, findings, surplusToo);
    }
    return surplusToo && !signal.aborted;
  }

  /** A bucket that differs twice in a row is a fault: the first time something may have been lost, and was put right. */
  #judgeBuckets(examined: readonly number[], unequal: ReadonlySet<number>): void {
    const { faults, service } = this.#rooms;
    const again = examined.filter((bucket) => unequal.has(bucket) && this.#unequal.has(bucket));
    for (const bucket of examined) {
      if (unequal.has(bucket)) this.#unequal.add(bucket);
      else this.#unequal.delete(bucket);
    }
    if (again.length > 0) {
      faults.raise("E_SITE_DIFFERS", service.name, `${again.length} of ${BUCKETS} parts differ from the centre's manifest again`,
        { buckets: again.length });
    } else if (this.#unequal.size === 0) faults.clear("E_SITE_DIFFERS", service.name);
  }

  async #held(applier: Applier, { intents }: Findings, complete: boolean, signal: AbortSignal): Promise<ReadonlySet<string>> {
    const { service, scope, feed } = this.#rooms;
    const removes = [...intents.byKind.values()].some(({ deletes }) => deletes > 0);
    const sourceEmptied = removes && await isSourceEmptied(service, scope, feed, signal);
    if (signal.aborted) return new Set();
    return heldKinds(this.#rooms, intents,
      { cause: "manifest", live: (kind) => applier.tally.liveOf(kind), sourceEmptied, complete });
  }

  async #repair(applier: Applier, findings: Findings, held: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const { service } = this.#rooms;
    if (findings.count === 0) return;
    this.#world.log.warn("the site differs from the centre's manifest and is put right", { service: service.name,
      take: findings.take.length, surplus: findings.surplus.length, ask: findings.ask.length, held: [...held].join(" ") });
    const isFree = (name: string): boolean => !held.has(kindOfName(name));
    const rankOf = (name: string): number => service.kinds.get(kindOfName(name))?.rank ?? 0;
    const take = findings.take.filter(isFree).sort((left, right) => rankOf(left) - rankOf(right));
    const { changesMax } = this.#options;
    const gone: string[] = [];
    const again = new Set(findings.ask);
    for (let from = 0; from < take.length && !signal.aborted; from += changesMax) {
      gone.push(...await this.#takeImages(applier, take.slice(from, from + changesMax), "images", again, signal));
    }
    // Tombstones last, children first.
    const childrenFirst = [...gone].reverse();
    for (let from = 0; from < childrenFirst.length && !signal.aborted; from += changesMax) {
      await this.#takeImages(applier, childrenFirst.slice(from, from + changesMax), "tombstones", again, signal);
    }
    const surplus = findings.surplus.filter(({ name }) => isFree(name));
    // Without an answer nothing is removed: the next manifest brings the question again.
    const confirmed = await confirmGone(this.#rooms, surplus.map(({ name }) => name), applier.position.epoch,
      this.#options.askTimeoutMs, signal);
    const removed = surplus.filter(({ name }) => confirmed?.has(name));
    await removeSurplus(applier, service, removed, changesMax, signal);
    this.#count("removed", removed.length);
    // The database has the rest: it is the stream that lacks them.
    for (const { name } of surplus) if (confirmed?.has(name) === false) again.add(name);
    if (!signal.aborted) await this.#askAgain([...again], applier.position.epoch);
  }

  /** Writes what the stream has of these aggregates now; gives the names of those with a tombstone, unless they are wanted. */
  async #takeImages(applier: Applier, names: readonly string[], wanted: "images" | "tombstones", again: Set<string>,
    signal: AbortSignal): Promise<readonly string[]> {
    const { service, scope, feed, rows } = this.#rooms;
    const prefix = subjectPrefix(service.name, scope);
    const applied = await rows.snapshot((read) => readApplied(read, names.map(keyFromText)));
    const changes: Received[] = [];
    const unreadable: Unreadable[] = [];
    const gone: string[] = [];
    const messages = await inLanes(names, LANES, (name) => feed.last(`${prefix}.${name}`));
    for (const [place, name] of names.entries()) {
      const message = messages[place];
      if (message === undefined) {
        // A damaged server gives an aggregate to readers and not to who asks for it; or it went meanwhile. A new publish tells.
        again.add(name);
        continue;
      }
      const weighed = weigh(applied.get(name), standingOf(message), applier.position, Infinity);
      if (weighed === "ask") again.add(name);
      if (weighed !== "take") continue;
      const arrival = receive(service, message);
      if (arrival.kind === "unreadable") unreadable.push(arrival.unreadable);
      // A header that does not go with its image would be taken for ever; the fault stays and says so.
      if (arrival.kind !== "change" || isHeld(arrival.change, applied.get(name))) continue;
      const isTombstone = arrival.change.payload === undefined;
      if (isTombstone && wanted === "images") gone.push(name);
      else changes.push(arrival.change);
    }
    if (changes.length + unreadable.length > 0) await applier.repair(changes, signal, unreadable);
    this.#count("taken", changes.length);
    return gone;
  }

  /** Asks the centre to publish what it has of these aggregates although the stream has the same: then it is newer. */
  async #askAgain(names: readonly string[], epoch: number): Promise<void> {
    const { site, service, feed } = this.#rooms;
    const { askTimeoutMs } = this.#options;
    if (site === undefined) return;
    for (let from = 0; from < names.length; from += ASKED_NAMES_MAX) {
      const asked = names.slice(from, from + ASKED_NAMES_MAX);
      try {
        await askOperation(feed, auditAskSubject(service.name, site), "again", { names: asked, epoch }, askTimeoutMs);
        this.#count("asked", asked.length);
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#world.log.warn("the auditor was asked to publish aggregates again and did not take it",
          { names: asked.length, ...factsOf(error) });
        return;
      }
    }
  }

  #count(what: string, amount: number): void {
    if (amount === 0) return;
    this.#world.metrics.count("holdfast_manifest_repairs_total", amount, { service: this.#rooms.service.name, what });
  }
}

/** The very image is applied, whatever the message's header says of it. */
function isHeld({ version, digest }: Received, applied: AppliedNote | undefined): boolean {
  return applied !== undefined && !applied.deleted && applied.digest === digest && compareVersions(applied, version) === 0;
}

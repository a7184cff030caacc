/**
 * The status report of a site: where it is in each stream, how far behind, what waits, what is wrong. Published on the feed now
 * and then and shown on the admin port; lost reports are not repeated, the next one says it all.
 */
import type { Cancel } from "../core/clock.ts";
import type { Faults } from "../core/faults.ts";
import type { Part } from "../core/lifecycle.ts";
import type { World } from "../core/world.ts";
import type { Feed } from "../feed/feed.ts";
import { statusSubject } from "../feed/subjects.ts";

/** Faults named in one report; the rest are counted. */
const REPORTED_FAULTS_MAX = 20;

/** Where one service's follower is. */
export interface FollowStatus {
  readonly service: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly mode: string;
  readonly parked: number;
  readonly quarantined: number;
  /** Number of the last heartbeat passed; 0 before the first. */
  readonly heard: number;
  /** Age of the newest applied change when it was committed here; 0 when nothing waits. Clocks of two machines: a hint. */
  readonly lagSeconds: number;
  /** Since everything on the stream was certainly here; undefined when it never was. */
  readonly ageSeconds: number | undefined;
  readonly notReady: string | undefined;
}

export interface ReportedFollower {
  readonly feed: Feed;
  readonly status: () => FollowStatus;
}

/** What one report says, also for the admin port. */
export function siteReport(site: string, follower: ReportedFollower, faults: Faults, atMs: number): object {
  const open = faults.list();
  return { site, atMs, ...follower.status(), faults: open.slice(0, REPORTED_FAULTS_MAX),
    faultsOpen: open.length + faults.notKept() };
}

/** Reports each follower every `everyMs`. */
export class Reporter implements Part {
  readonly name = "report";
  readonly #site: string;
  readonly #followers: readonly ReportedFollower[];
  readonly #faults: Faults;
  readonly #world: World;
  readonly #everyMs: number;
  #cancel: Cancel | undefined;

  constructor(site: string, followers: readonly ReportedFollower[], faults: Faults, world: World, everyMs: number) {
    this.#site = site;
    this.#followers = followers;
    this.#faults = faults;
    this.#world = world;
    this.#everyMs = everyMs;
  }

  start(): Promise<void> {
    this.#tick();
    return Promise.resolve();
  }

  stop(): Promise<void> {
    this.#cancel?.();
    return Promise.resolve();
  }

  #tick(): void {
    for (const follower of this.#followers) {
      const report = siteReport(this.#site, follower, this.#faults, this.#world.clock.nowMs());
      follower.feed.report(statusSubject(follower.status().service, this.#site), Buffer.from(JSON.stringify(report)));
    }
    this.#cancel = this.#world.clock.after(this.#everyMs, () => this.#tick());
  }
}

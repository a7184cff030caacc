/**
 * What a site does beside applying, between two batches of the tail: the sweep that is due after a fill, and what a manifest asks
 * for: a check, and a look at what waits. Nothing of it ever stops the tail: what could not be done is logged and done later,
 * the sweep after a pause, the rest with the next manifest.
 *
 * A sweep that finds something absent for the first time removes nothing: the next heartbeat brings another one.
 *
 * Bounds: a sweep that was held or failed is tried again after sweepAgainMs at the earliest, or when it is asked for.
 */
import { isOperating } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import type { Heartbeat, Manifest } from "../schemas/manifest.ts";
import { MovedError, type Applier } from "./applier.ts";
import type { SitePosition } from "./ledger.ts";
import { ManifestCheck, type CheckOptions, type CheckRooms } from "./manifest-check.ts";
import { Rescue } from "./rescue.ts";
import { sweepSite, type SweepOutcome } from "./sweep.ts";

/** Pause after a sweep for which nobody at the centre answered. */
const UNANSWERED_PAUSE_MS = 5_000;

export interface UpkeepOptions extends CheckOptions {
  readonly manifestChecks: boolean;
  /** Between two tries of a sweep that is held or could not be done. */
  readonly sweepAgainMs: number;
}

/** The upkeep of one follower; its calls must not run while anything else commits. */
export class Upkeep {
  readonly #rooms: CheckRooms;
  readonly #world: World;
  readonly #options: UpkeepOptions;
  readonly #check: ManifestCheck;
  readonly #rescue: Rescue;
  #sweepFromMs = 0;
  /** What the last sweep found absent, and the heartbeat that it began after. */
  #absent: { readonly epoch: number; readonly n: number; readonly names: ReadonlySet<string> } | undefined;
  /** True until a heartbeat has come since a sweep that proved nothing yet. */
  #isWaiting = false;
  /** Epoch of the last manifest, if it said that everything is applied here; 0 otherwise. */
  #provenEpoch = 0;

  constructor(rooms: CheckRooms, world: World, options: UpkeepOptions) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#check = new ManifestCheck(rooms, world, options);
    this.#rescue = new Rescue(rooms, world, options.askTimeoutMs);
  }

  /** The next heartbeat or quiet moment may sweep, however lately it was tried. */
  hastenSweep(): void {
    this.#sweepFromMs = 0;
  }

  /** True while the last manifest passed at `position` or before found nothing that differs, and nothing was read anew since. */
  isProven({ epoch, mode }: SitePosition): boolean {
    return mode === "tail" && epoch === this.#provenEpoch;
  }

  /**
   * Sweeps if that is due and the centre has said that everything is on the stream. `newest`: the newest heartbeat known.
   * @throws MovedError
   */
  async sweepIfDue(applier: Applier, newest: Heartbeat | undefined, signal: AbortSignal): Promise<void> {
    const { position } = applier;
    if (position.mode === "sweep") this.#provenEpoch = 0;
    if (position.mode !== "sweep" || newest?.filled !== true || newest.epoch !== position.epoch) return;
    if (this.#world.clock.monotonicMs() < this.#sweepFromMs) return;
    const before = this.#absent;
    const isLater = before !== undefined && before.epoch === newest.epoch && newest.n > before.n;
    if (this.#isWaiting && before?.epoch === newest.epoch && !isLater) return;
    this.#sweepFromMs = this.#world.clock.monotonicMs() + this.#options.sweepAgainMs;
    const names = new Set<string>();
    const absences = { note: (name: string): void => void names.add(name),
      isProven: (name: string): boolean => isLater && before.names.has(name) };
    const outcome = await this.#unlessAway<SweepOutcome>("a sweep", () =>
      sweepSite({ ...this.#rooms, absences }, this.#world, applier, this.#options.changesMax, signal));
    this.#isWaiting = outcome === "unproven";
    if (this.#isWaiting) this.#absent = { epoch: newest.epoch, n: newest.n, names };
    if (outcome === "more" || outcome === "unproven") this.hastenSweep();
    if (outcome === "unanswered") this.#sweepFromMs = this.#world.clock.monotonicMs() + UNANSWERED_PAUSE_MS;
    if (outcome !== "done") return;
    const tail: SitePosition = { ...applier.position, mode: "tail" };
    await applier.carry({ changes: [], unreadable: [] }, tail, signal);
  }

  /** Compares with a manifest that the position has just passed; true: everything should be read anew. @throws MovedError */
  async check(applier: Applier, manifest: Manifest, signal: AbortSignal): Promise<boolean> {
    if (!this.#options.manifestChecks) return false;
    const outcome = await this.#unlessAway("a manifest check", () => this.#check.check(manifest, applier, signal));
    this.#provenEpoch = outcome === "equal" ? manifest.epoch : 0;
    if (outcome !== "resync") await this.#unlessAway("a look at what waits", () => this.#rescue.look(applier, signal));
    return outcome === "resync";
  }

  async #unlessAway<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!isOperating(error) || error instanceof MovedError) throw error;
      this.#world.log.warn(`${what} could not be finished and is tried again later`,
        { service: this.#rooms.service.name, ...factsOf(error) });
      return undefined;
    }
  }
}

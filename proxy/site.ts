/**
 * The way of a call through a site's proxy: the centre answers, or this site does from its own rows, or nobody may. Which of
 * them, choose.ts decides; here it is done.
 *
 * Invariants: a call that may change rows is sent to the centre alone and at most once, and when the centre is cut off it is
 * refused before a byte of it was sent; a call that only reads or signs in is answered in the same exchange by the site when
 * the centre cannot, as long as nothing was said to the client; an answer of the site while it is not connected says so,
 * and an answer of the centre is never touched.
 * Bounds: bodies of sign-ins up to GATHERED_BYTES_MAX are kept for a second try; larger ones go to one cloud only.
 * Not here: capture (the centre's proxy does that), changes made at a site that is cut off.
 */
import { unreachable } from "../core/assert.ts";
import type { Part } from "../core/lifecycle.ts";
import { stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import type { Service } from "../schemas/define.ts";
import { discardRest, gather } from "./body.ts";
import { choose, type Profile } from "./choose.ts";
import type { Exchange } from "./exchange.ts";
import type { Forwarder, Relayed, RelayOptions } from "./forward.ts";
import type { Freshness } from "./freshness.ts";
import { OwnWrites } from "./own-writes.ts";
import type { Reach } from "./reach.ts";
import { refuse } from "./refuse.ts";
import { GATHERED_BYTES_MAX, type Elsewhere } from "./relay.ts";
import { UPSTREAM_DEFAULTS } from "./upstream.ts";
import { routerOf, type RouteClass, type Router } from "./route.ts";

/** Answers of the centre that mean that the service behind it is not there. */
const ABSENT: ReadonlySet<number> = new Set([502, 503, 504]);
/** The site's own service is nobody's to give up. */
const LOCAL_PATIENCE: Elsewhere = { giveUp: stopSignal().signal, absent: ABSENT, patienceMs: UPSTREAM_DEFAULTS.firstByteTimeoutMs,
  doubted: () => undefined };
type Cloud = "centre" | "local";
const KEEP_NOTHING: RelayOptions = { keepAnswerBytes: 0, keepRequestBytes: 0 };

export interface SiteServing {
  readonly profile: Profile;
  /** Rows of at most this age are fresh enough for local-first. */
  readonly freshWithinMs: number;
  /** After a change through this proxy its caller is answered by the centre for this long. */
  readonly ownWritesMs: number;
  /** A call that waits for the centre for longer than this makes the proxy ask whether the centre is there. */
  readonly patienceMs: number;
  /** Told to clients whose change was refused. */
  readonly retryAfterMs: number;
  /** Answers of the site while it is not connected carry headers that say so. */
  readonly truthHeaders: boolean;
}

export interface SiteRooms {
  readonly site: string;
  readonly service: Service;
  readonly centre: Forwarder;
  readonly local: Forwarder;
  readonly reach: Reach;
  readonly freshness: Freshness;
  readonly world: World;
}

/** See the file's head. */
export class Site {
  readonly parts: readonly Part[];
  readonly #rooms: SiteRooms;
  readonly #serving: SiteServing;
  readonly #router: Router;
  readonly #ownWrites: OwnWrites;

  constructor(rooms: SiteRooms, serving: SiteServing) {
    this.#rooms = rooms;
    this.#serving = serving;
    this.#router = routerOf(rooms.service);
    this.#ownWrites = new OwnWrites(serving.ownWritesMs, rooms.world.clock);
    this.parts = [rooms.freshness, rooms.reach];
  }

  /** For the status document. */
  status(): object {
    return { profile: this.#serving.profile, centre: this.#rooms.reach.status(), local: this.#rooms.freshness.status() };
  }

  /** Takes one call to its answer; never rejects. */
  async handle(exchange: Exchange): Promise<void> {
    const { reach, world } = this.#rooms;
    const routeClass = this.#router.classOf(exchange.method, exchange.target);
    const choice = choose({ routeClass, profile: this.#serving.profile, reach: reach.state, fresh: this.#isFresh(),
      wrote: routeClass === "sign-in" ? this.#ownWrites.any() : this.#ownWrites.by(exchange) });
    world.metrics.count("holdfast_choices_total", 1, { class: routeClass, choice });
    switch (choice) {
      case "refuse": return this.#refuse(exchange);
      case "centre": return this.#write(exchange);
      case "local": return this.#last(exchange, routeClass, "local", undefined);
      case "centre-or-local": return this.#first(exchange, routeClass, "centre");
      case "local-or-centre": return this.#first(exchange, routeClass, "local");
      default: return unreachable(choice);
    }
  }

  #isFresh(): boolean {
    const seconds = this.#rooms.freshness.age()?.seconds;
    return seconds !== undefined && seconds * 1000 <= this.#serving.freshWithinMs;
  }

  #refuse({ request, response, requestId, head }: Exchange): void {
    const { site, service, world } = this.#rooms;
    const message = `The central cloud cannot be reached from ${site}, so this change was not made. Signing in and reading go `
      + "on here. Try again when the connection is back.";
    const refusal = { status: 503, message, retryAfterSeconds: Math.ceil(this.#serving.retryAfterMs / 1000) };
    refuse(response, service.errorShape, refusal, requestId, head.expectsContinue && !request.complete);
    discardRest(request, world.clock);
  }

  async #write(exchange: Exchange): Promise<void> {
    this.#ownWrites.note(exchange);
    const relayed = await this.#rooms.centre.relay(exchange, { ...KEEP_NOTHING, mutates: true });
    // From its answer on: it may have taken long.
    this.#ownWrites.note(exchange);
    this.#learnFrom(exchange, relayed);
  }

  /** Asks one cloud, and the other one in the same call when the first cannot answer. */
  async #first(exchange: Exchange, routeClass: RouteClass, first: Cloud): Promise<void> {
    const body = await this.#bodyOf(exchange);
    if (body === "gone") return;
    // What is streamed can be sent once only.
    if (body === "streamed") return this.#last(exchange, routeClass, first, undefined);
    const { reach, centre, local, world } = this.#rooms;
    const elsewhere = first === "centre" ? { giveUp: reach.giveUp, absent: ABSENT, patienceMs: this.#serving.patienceMs,
      doubted: () => reach.doubted() } : LOCAL_PATIENCE;
    const relayed = await (first === "centre" ? centre : local).relay(exchange,
      { ...KEEP_NOTHING, mutates: false, body, elsewhere });
    if (first === "centre") this.#learnFrom(exchange, relayed);
    if (relayed.answered) return;
    world.metrics.count("holdfast_answered_instead_total", 1, { class: routeClass, instead: first });
    await this.#last(exchange, routeClass, first === "centre" ? "local" : "centre", body);
  }

  /** Asks one cloud, whose failure is the answer. */
  async #last(exchange: Exchange, routeClass: RouteClass, cloud: Cloud, body: Uint8Array | undefined): Promise<void> {
    const { reach, centre, local } = this.#rooms;
    const options: RelayOptions = { ...KEEP_NOTHING, mutates: routeClass === "write", body };
    if (cloud === "centre") return this.#learnFrom(exchange, await centre.relay(exchange, options));
    const isTold = this.#serving.truthHeaders && reach.state !== "connected";
    await local.relay(exchange, { ...options, ...(isTold ? { marks: this.#marks() } : {}) });
  }

  /** Who answers, from which state of the rows, and how old it is. */
  #marks(): readonly string[] {
    const age = this.#rooms.freshness.age();
    const known = age === undefined ? [] : ["X-Holdfast-Position", age.position];
    return ["X-Holdfast-Served-By", this.#rooms.site, "X-Holdfast-Data-Age", age?.seconds === undefined ? "unknown"
      : String(age.seconds), ...known];
  }

  /** The body of a call that may be sent twice: read into memory where it is small. */
  async #bodyOf({ request, response, head, requestId }: Exchange): Promise<Uint8Array | undefined | "gone" | "streamed"> {
    if (head.body === "none") return undefined;
    if (head.body === "length" && head.lengthBytes > GATHERED_BYTES_MAX) return "streamed";
    if (head.expectsContinue) response.writeContinue();
    const gathered = await gather(request, GATHERED_BYTES_MAX, this.#rooms.world.clock, UPSTREAM_DEFAULTS.idleTimeoutMs);
    switch (gathered.gathered) {
      case "whole": return gathered.body;
      case "broken": return "gone";
      case "too-large": {
        const message = `The request body is larger than ${GATHERED_BYTES_MAX} bytes.`;
        refuse(response, this.#rooms.service.errorShape, { status: 413, message }, requestId);
        discardRest(request, this.#rooms.world.clock);
        return "gone";
      }
      default: return unreachable(gathered);
    }
  }

  /** What a call has met on its way says whether the centre can be reached; a client that left says nothing. */
  #learnFrom({ response }: Exchange, { outcome, status }: Relayed): void {
    const { reach } = this.#rooms;
    if (outcome === "answered" && status !== undefined && !ABSENT.has(status)) reach.answered();
    else if (response.headersSent || !response.destroyed) reach.doubted();
  }
}

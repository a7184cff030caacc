/**
 * One call between a client and the upstream: sends the request, delivers the answer, and says truthfully what is known when
 * something breaks.
 *
 * Invariants: exactly one answer or a destroyed client socket, never a cut answer that looks whole; a call that writes is sent
 * at most once, and once its request is completely sent it is seen through even if the client has left; "refused" means
 * that not one byte of the request was sent; memory per call is bounded by HELD_BYTES_MAX plus the keep options.
 * Not here: choosing connections and waiting for one (forward.ts).
 */
import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher } from "undici";
import { present } from "../core/assert.ts";
import type { Cancel } from "../core/clock.ts";
import { discardRest, gather, JsonWatch, Keeper, Upload } from "./body.ts";
import { isRead, type Exchange } from "./exchange.ts";
import { describeFailure, LOOK_FIRST, Overdue, type Failure } from "./failure.ts";
import type { Carrier } from "./forward.ts";
import { forwardedFields, isJson, readAnswerHead, type AnswerHead } from "./headers.ts";
import { refuse } from "./refuse.ts";

/** Bodies of unknown length for upstreams that cannot read them: as much as OpenStack's own max_request_body_size. */
export const GATHERED_BYTES_MAX = 114_688;
/** Answers without a length are held back up to here, so that a cut one can still become a 502. */
export const HELD_BYTES_MAX = 1024 * 1024;
/** Whole answers up to here leave together with their head. */
const ONE_WRITE_BYTES_MAX = 16 * 1024;
/** First byte after a body larger than GATHERED_BYTES_MAX: storing it may take the service long. */
export const FIRST_BYTE_AFTER_UPLOAD_MS = 15 * 60_000;
/** A client that reads nothing of its answer for this long is given up. */
export const CLIENT_STALL_MS = 10 * 60_000;

export interface RelayOptions {
  /** Bodies up to these sizes are kept for the caller; 0 keeps none. */
  readonly keepAnswerBytes: number;
  readonly keepRequestBytes: number;
  /** The call may change something; by default every method but GET, HEAD, OPTIONS and TRACE does. */
  readonly mutates?: boolean;
  /** The whole request body, where it was read before; it is not read from the client then. */
  readonly body?: Uint8Array | undefined;
  /** Fields (flat name, value list) that are added to the answer's head. */
  readonly marks?: readonly string[] | undefined;
  /** The caller can have the call answered elsewhere; only for calls that may be sent twice. */
  readonly elsewhere?: Elsewhere | undefined;
}

/**
 * Failures leave the client unanswered, as far as nothing was said to it yet; so that little is, answers are held back up to
 * HELD_BYTES_MAX until they are whole.
 */
export interface Elsewhere {
  /** Aborts when nobody waits for this upstream any more. */
  readonly giveUp: AbortSignal;
  /** An answer with one of these statuses means that the service is not there, and is a failure. */
  readonly absent: ReadonlySet<number>;
  /** How long a call usually waits for its answer; `doubted` is called once after this time. */
  readonly patienceMs: number;
  readonly doubted: () => void;
}

export interface Relayed {
  /** "answered": the upstream's answer arrived whole. "refused": certainly not executed. "unknown": it may have been. */
  readonly outcome: "answered" | "refused" | "unknown";
  /** The upstream's status, where its head arrived. */
  readonly status: number | undefined;
  /** The upstream's headers, names in lower case. */
  readonly headers: IncomingHttpHeaders;
  /** The body as it came, when it was whole and not longer than asked for. */
  readonly answer: Uint8Array | undefined;
  readonly answerType: string | undefined;
  readonly requestBody: Uint8Array | undefined;
  /** False when the client still waits for an answer (only with `elsewhere`). */
  readonly answered: boolean;
}

/** How the answer's body goes to the client. */
type Delivery = "none" | "stream" | "hold" | "discard";

/** One call under way: made by forward.ts, started once, told by undici what happens, done once. */
export class Relay implements Dispatcher.DispatchHandler {
  readonly #carrier: Carrier;
  readonly #exchange: Exchange;
  readonly #options: RelayOptions;
  readonly #done: (relayed: Relayed) => void;
  readonly #mutates: boolean;
  readonly #requestKeeper: Keeper;
  readonly #answerKeeper: Keeper;
  #upload: Upload | undefined;
  #body: Uint8Array | Upload | null = null;
  #controller: Dispatcher.DispatchController | undefined;
  #reuse = false;
  #answerBegan = false;
  #status: number | undefined;
  #reason = "";
  #headers: IncomingHttpHeaders = {};
  #head: AnswerHead | undefined;
  #delivery: Delivery = "stream";
  #held: Buffer[] = [];
  #heldBytes = 0;
  #watch: JsonWatch | undefined;
  #cancelStall: Cancel | undefined;
  #cancelWatch: Cancel | undefined;
  #firstByteTimeoutMs = 0;
  /** Monotonic time of the last sign of life from the upstream, or of the start. */
  #lastMs = 0;
  #settled = false;

  constructor(carrier: Carrier, exchange: Exchange, options: RelayOptions, done: (relayed: Relayed) => void) {
    this.#carrier = carrier;
    this.#exchange = exchange;
    this.#options = options;
    this.#done = done;
    this.#mutates = options.mutates ?? !isRead(exchange.method);
    this.#requestKeeper = new Keeper(options.keepRequestBytes);
    this.#answerKeeper = new Keeper(options.keepAnswerBytes);
  }

  /** Sends the request. `done` is called exactly once. */
  start(): void {
    const { response, head } = this.#exchange;
    if (response.destroyed || this.#exchange.request.socket.destroyed) return this.#settle("refused");
    response.once("close", () => this.#clientGone());
    this.#watchElsewhere();
    const { body } = this.#options;
    if (body !== undefined) return this.#send(body.byteLength === 0 ? null : body);
    if (head.expectsContinue && head.body !== "none") response.writeContinue();
    if (head.body === "none") this.#send(null);
    else if (head.body === "chunked" && !this.#carrier.profile.chunkedRequests) void this.#gatherAndSend();
    else this.#send((this.#upload = this.#newUpload()));
  }

  /** Ends a call that can be answered elsewhere when its upstream is given up, and says when it takes long. */
  #watchElsewhere(): void {
    const { elsewhere } = this.#options;
    if (elsewhere === undefined) return;
    const onGivenUp = (): void => {
      if (this.#settled || this.#exchange.response.headersSent) return;
      if (this.#controller === undefined) this.#settle("refused");
      else this.#controller.abort(new Error("the upstream was given up"));
    };
    elsewhere.giveUp.addEventListener("abort", onGivenUp, { once: true });
    const cancel = this.#carrier.world.clock.after(elsewhere.patienceMs, () => elsewhere.doubted());
    this.#leaveElsewhere = () => {
      cancel();
      elsewhere.giveUp.removeEventListener("abort", onGivenUp);
    };
  }

  /** The outcome of a call that was never started; answers the client. */
  refuseUnsent(reason: string): Relayed {
    const message = `${reason} The request was not executed.`;
    this.#fail({ outcome: "refused", status: 503, message, retryAfterSeconds: 1 }, false);
    return this.#relayed("refused");
  }

  #newUpload(): Upload {
    const upload = new Upload(this.#exchange.request, { clock: this.#carrier.world.clock, keeper: this.#requestKeeper,
      idleTimeoutMs: this.#carrier.profile.idleTimeoutMs });
    // undici listens while it reads; a client that breaks off later is seen by the response's close.
    upload.on("error", () => undefined);
    return upload;
  }

  async #gatherAndSend(): Promise<void> {
    const { profile, world } = this.#carrier;
    const gathered = await gather(this.#exchange.request, GATHERED_BYTES_MAX, world.clock, profile.idleTimeoutMs);
    if (this.#settled) return;
    if (gathered.gathered === "broken") return this.#settle("refused");
    if (gathered.gathered === "too-large") {
      const message = `The request body is larger than ${GATHERED_BYTES_MAX} bytes.`;
      return this.#fail({ outcome: "refused", status: 413, message });
    }
    this.#requestKeeper.take(gathered.body);
    this.#send(gathered.body);
  }

  #send(body: Uint8Array | Upload | null): void {
    const { method, target, head, request, scheme } = this.#exchange;
    const { profile, prefix } = this.#carrier;
    this.#body = body;
    // Only what can be repeated may meet a connection that the upstream is just closing.
    this.#reuse = profile.keepAlive && body === null && !this.#mutates;
    const large = body instanceof Upload && (head.body === "chunked" || head.lengthBytes > GATHERED_BYTES_MAX);
    this.#firstByteTimeoutMs = large ? FIRST_BYTE_AFTER_UPLOAD_MS : profile.firstByteTimeoutMs;
    this.#dispatch({ method, path: prefix === "" ? target : `${prefix}${target}`,
      headers: [...head.fields, ...forwardedFields(request.socket.remoteAddress, scheme)],
      body: body instanceof Uint8Array ? Buffer.from(body.buffer, body.byteOffset, body.byteLength) : body });
    this.#lastMs = this.#carrier.world.clock.monotonicMs();
    this.#watchTime(Math.min(this.#firstByteTimeoutMs, profile.idleTimeoutMs));
  }

  #dispatch(options: Dispatcher.DispatchOptions): void {
    this.#retry = () => {
      this.#reuse = false;
      this.#controller = undefined;
      this.#dispatch(options);
    };
    this.#carrier.dispatch(this.#reuse, options, this);
  }

  #retry: () => void = () => undefined;
  #leaveElsewhere: () => void = () => undefined;

  /** Looks after `delayMs` whether the upstream is silent for too long; our client's slowness is not its fault. */
  #watchTime(delayMs: number): void {
    if (this.#settled) return;
    const { clock } = this.#carrier.world;
    this.#cancelWatch = clock.after(delayMs, () => {
      const limitMs = this.#head === undefined ? this.#firstByteTimeoutMs : this.#carrier.profile.idleTimeoutMs;
      const leftMs = Math.max(this.#lastMs, this.#upload?.lastMs ?? 0) + limitMs - clock.monotonicMs();
      const clientIsSlow = this.#cancelStall !== undefined || this.#upload?.complete === false && !this.#upload.blocked;
      // Without a controller there is no connection yet; that wait has a bound of its own.
      if (clientIsSlow || this.#controller === undefined) this.#watchTime(limitMs);
      else if (leftMs > 0) this.#watchTime(leftMs);
      else this.#controller.abort(new Overdue());
    });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#settled) return controller.abort(new Error("the client left before the request was sent"));
    this.#controller = controller;
  }

  onResponseStarted(): void {
    this.#answerBegan = true;
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders,
    reason?: string): void {
    this.#answerBegan = true;
    if (status < 200) return;
    this.#lastMs = this.#carrier.world.clock.monotonicMs();
    const { elsewhere, marks } = this.#options;
    if (elsewhere?.absent.has(status) === true) return controller.abort(new Error(`the service is not there: ${status}`));
    const head = readAnswerHead(rawFields(controller.rawHeaders));
    if (marks !== undefined) head.fields.push(...marks);
    this.#status = status;
    this.#reason = reason ?? "";
    this.#headers = headers;
    this.#head = head;
    const bodiless = status === 204 || status === 304 || this.#exchange.method.toUpperCase() === "HEAD";
    if (!bodiless && head.framing === "close" && isJson(head.type)) this.#watch = new JsonWatch();
    if (this.#delivery === "discard") return;
    this.#delivery = bodiless ? "none" : this.#watch === undefined && elsewhere === undefined ? "stream" : "hold";
    if (this.#delivery !== "hold") this.#writeHead(head.fields);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#lastMs = this.#carrier.world.clock.monotonicMs();
    this.#answerKeeper.take(chunk);
    this.#watch?.take(chunk);
    // A whole small body waits for the end, which follows at once, to leave in one write with its head.
    const whole = chunk.byteLength === this.#head?.lengthBytes && chunk.byteLength <= ONE_WRITE_BYTES_MAX;
    if (this.#delivery === "stream" && !whole) return this.#write(controller, chunk);
    if (this.#delivery === "none" || this.#delivery === "discard") return;
    this.#held.push(chunk);
    this.#heldBytes += chunk.byteLength;
    if (this.#heldBytes <= HELD_BYTES_MAX || this.#delivery === "stream") return;
    this.#delivery = "stream";
    this.#writeHead(this.#head?.fields ?? []);
    for (const held of this.#held.splice(0)) this.#write(controller, held);
  }

  onResponseEnd(): void {
    const reset = this.#carrier.resetting && this.#head?.framing === "close";
    if (reset || this.#watch?.ended() === false) return this.#broken("The service's answer was cut off.");
    if (this.#delivery === "hold") this.#writeHead(this.#headOfHeld());
    if (this.#delivery !== "discard") {
      this.#endAnswer();
      this.#discardRest();
    }
    this.#settle("answered");
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#settled) return;
    const sent = this.#controller !== undefined;
    const failure = describeFailure(error, { sent, mutates: this.#mutates });
    if (this.#reuse && sent && !this.#answerBegan && failure.stale) return this.#retry();
    this.#carrier.world.metrics.count("holdfast_proxy_failures", 1, { outcome: failure.outcome, status: String(failure.status) });
    if (this.#head === undefined) return this.#fail(failure);
    this.#broken(failure.message);
  }

  /** The answer broke after its head. What was held back can still become a 502; what was begun is cut, visibly. */
  #broken(message: string): void {
    if (this.#delivery !== "discard" && !this.#exchange.response.headersSent) {
      return this.#fail({ outcome: "unknown", status: 502, message: this.#mutates ? `${message} ${LOOK_FIRST}` : message });
    }
    if (this.#delivery !== "discard") this.#exchange.response.destroy();
    this.#settle("unknown");
  }

  #fail(failure: Failure, settle = true): void {
    const { response, head, request, requestId } = this.#exchange;
    if (this.#options.elsewhere === undefined) {
      // Without 100 the client has not sent its body; the next bytes on the connection could be anything.
      const unread = head.expectsContinue && head.body !== "none" && !request.complete;
      refuse(response, this.#carrier.profile.errorShape, failure, requestId, unread);
      this.#discardRest();
    }
    if (settle) this.#settle(failure.outcome);
  }

  #headOfHeld(): string[] {
    const { fields, lengthBytes } = present(this.#head, "an answer that is held back has begun");
    return lengthBytes === undefined ? [...fields, "Content-Length", String(this.#heldBytes)] : fields;
  }

  #writeHead(fields: string[]): void {
    const { response } = this.#exchange;
    response.sendDate = false;
    response.writeHead(this.#status ?? 502, this.#reason, fields);
  }

  /** Latin-1 text is the same bytes, and Node writes text together with the head: one system call instead of two buffers. */
  #endAnswer(): void {
    const { response } = this.#exchange;
    const body = this.#held.length === 1 ? this.#held[0] : Buffer.concat(this.#held);
    if (body === undefined || body.byteLength === 0) response.end();
    else if (body.byteLength <= ONE_WRITE_BYTES_MAX) response.end(body.toString("latin1"), "latin1");
    else response.end(body);
  }

  #write(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const { response } = this.#exchange;
    if (response.write(chunk) || this.#cancelStall !== undefined) return;
    controller.pause();
    this.#cancelStall = this.#carrier.world.clock.after(CLIENT_STALL_MS, () => response.destroy());
    response.once("drain", () => this.#goOn());
  }

  #goOn(): void {
    this.#lastMs = this.#carrier.world.clock.monotonicMs();
    this.#cancelStall?.();
    this.#cancelStall = undefined;
    this.#controller?.resume();
  }

  #discardRest(): void {
    const { request } = this.#exchange;
    if (request.complete || request.destroyed) return;
    this.#upload?.destroy();
    discardRest(request, this.#carrier.world.clock);
  }

  #clientGone(): void {
    if (this.#settled) return;
    const sentWhole = this.#controller !== undefined && (this.#upload === undefined || this.#upload.complete);
    if (this.#mutates && sentWhole) {
      this.#delivery = "discard";
      this.#held = [];
      return this.#goOn();
    }
    const controller = this.#controller;
    this.#settle(controller === undefined ? "refused" : "unknown");
    controller?.abort(new Error("the client left"));
    this.#upload?.destroy();
  }

  #settle(outcome: Relayed["outcome"]): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#leaveElsewhere();
    this.#cancelStall?.();
    this.#cancelWatch?.();
    this.#done(this.#relayed(outcome));
  }

  #relayed(outcome: Relayed["outcome"]): Relayed {
    const { response, head } = this.#exchange;
    const whole = outcome === "answered";
    const requestWhole = head.body === "none" || this.#body instanceof Uint8Array || this.#upload?.complete === true;
    return { outcome, status: this.#status, headers: this.#headers, answer: whole ? this.#answerKeeper.whole() : undefined,
      answerType: this.#head?.type, requestBody: requestWhole ? this.#requestKeeper.whole() : undefined,
      answered: response.headersSent || response.destroyed };
  }
}

function rawFields(raw: Dispatcher.DispatchController["rawHeaders"]): readonly (Uint8Array | string)[] {
  return Array.isArray(raw) ? raw : Object.entries(raw ?? {}).flatMap(([name, value]) => [name, String(value)]);
}

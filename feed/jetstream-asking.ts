/**
 * Questions and answers over a NATS connection (port: feed/feed.ts, ask and serve): plain requests, nothing is stored.
 *
 * Invariants: serving goes on over every reconnection, on whatever connection stands; an answer is sent on the connection
 * that its question came over, or not at all, because the asker's deadline runs and nothing is queued for a server that is
 * away; an answer larger than the server takes is logged and not sent, because the server would close the connection.
 * A site's answers come to a subject of that site, for which the asker listens while it asks (permissions.ts says why).
 * Outside facts: subscriptions survive the library's own reconnects and end when the server refuses them; the server says at
 * once when nobody serves a subject.
 * Not here: the bounds of answering (answering.ts), the connection (link.ts).
 */
import { NoRespondersError, TimeoutError, type NatsConnection, type Subscription } from "@nats-io/transport-node";
import { OperatingError } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { AnswerDesk, type Answer } from "./answering.ts";
import { meaningOf, unavailable } from "./answers.ts";
import type { Link } from "./link.ts";
import { answerSubjectOf } from "./subjects.ts";

/** Questions that may wait for their answer at once. */
const ASKS_IN_FLIGHT_MAX = 256;

interface Serving {
  readonly subject: string;
  readonly desk: AnswerDesk;
  at: { readonly connection: NatsConnection; readonly subscription: Subscription } | undefined;
}

function isUnserved(error: unknown): boolean {
  return error instanceof NoRespondersError || (error instanceof Error && error.cause instanceof NoRespondersError);
}

function isLate(error: unknown): boolean {
  return error instanceof TimeoutError || (error instanceof Error && error.cause instanceof TimeoutError);
}

/** Largest payload that the server of `connection` takes, in bytes. */
function payloadBytesMax(connection: NatsConnection): number {
  return connection.info?.max_payload ?? 1024 ** 2;
}

/** The asking and answering side of one feed; tell it of every connection with joined(). */
export class Asking {
  readonly #link: Link;
  readonly #world: World;
  readonly #servings = new Set<Serving>();
  #asksInFlight = 0;

  constructor(link: Link, world: World) {
    this.#link = link;
    this.#world = world;
  }

  /** @throws E_ASK_UNANSWERED, E_FEED_UNAVAILABLE, E_FEED_FORBIDDEN; E_OPERATION_INPUT when the question is too large */
  async ask(subject: string, question: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    if (this.#asksInFlight >= ASKS_IN_FLIGHT_MAX) throw unavailable("too many questions are in flight", { subject });
    this.#asksInFlight += 1;
    try {
      return await this.#request(subject, question, timeoutMs);
    } finally {
      this.#asksInFlight -= 1;
    }
  }

  /** Serves until the returned function is called. */
  serve(subject: string, answer: Answer): () => void {
    const serving: Serving = { subject, desk: new AnswerDesk(answer, this.#world), at: undefined };
    this.#servings.add(serving);
    if (this.#link.disconnected() === undefined) this.#subscribe(serving, this.#link.connected());
    return () => {
      this.#servings.delete(serving);
      this.#end(serving);
    };
  }

  /** Call each time a connection stands, whether it is a new one or the old one again. */
  joined(connection: NatsConnection): void {
    for (const serving of this.#servings) {
      const { at } = serving;
      // A subscription that the server refused is closed; the operator may have granted it meanwhile.
      if (at?.connection === connection && !at.subscription.isClosed()) continue;
      this.#subscribe(serving, connection);
    }
  }

  /** Ends all serving. */
  close(): void {
    for (const serving of this.#servings) this.#end(serving);
    this.#servings.clear();
  }

  #request(subject: string, question: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    return this.#link.call("asking", async (connection) => {
      const sizeBytesMax = payloadBytesMax(connection);
      if (question.byteLength > sizeBytesMax) {
        throw new OperatingError("E_OPERATION_INPUT", `the question for ${subject} is too large`,
          { subject, sizeBytes: question.byteLength, sizeBytesMax });
      }
      try {
        const reply = answerSubjectOf(subject, this.#world.random.id());
        const where = reply === undefined ? {} : { noMux: true, reply };
        return (await connection.request(subject, question, { timeout: timeoutMs, ...where })).data;
      } catch (error) {
        if (isUnserved(error)) throw new OperatingError("E_ASK_UNANSWERED", `nobody serves ${subject} now`, { subject });
        if (!isLate(error)) throw error;
        throw new OperatingError("E_ASK_UNANSWERED", `no answer from ${subject} in time`, { subject, timeoutMs });
      }
    });
  }

  #end(serving: Serving): void {
    serving.desk.close();
    const { at } = serving;
    serving.at = undefined;
    if (at !== undefined && !at.connection.isClosed() && !at.subscription.isClosed()) at.subscription.unsubscribe();
  }

  #subscribe(serving: Serving, connection: NatsConnection): void {
    try {
      const subscription = connection.subscribe(serving.subject, { callback: (error, message) => {
        // A refusal reaches the log through the link.
        if (error !== null) return;
        serving.desk.take(message.data, message.subject, (answer) => this.#reply(connection, message, answer));
      } });
      serving.at = { connection, subscription };
    } catch (error) {
      // The connection closed under us; the next one brings us here again.
      const { subject } = serving;
      this.#world.log.debug("questions cannot be heard", { subject, ...factsOf(meaningOf(error, "subscribing")) });
    }
  }

  #reply(connection: NatsConnection, message: { readonly subject: string; respond(answer: Uint8Array): boolean },
    answer: Uint8Array): void {
    const { log } = this.#world;
    const { subject } = message;
    const sizeBytesMax = payloadBytesMax(connection);
    if (answer.byteLength > sizeBytesMax) {
      log.error("an answer is larger than the stream server takes and was not sent",
        { subject, sizeBytes: answer.byteLength, sizeBytesMax });
      return;
    }
    if (this.#link.disconnected() !== undefined || connection.isClosed()) return;
    try {
      if (!message.respond(answer)) log.debug("a question wanted no answer", { subject });
    } catch (error) {
      log.debug("an answer was not sent", { subject, ...factsOf(meaningOf(error, "answering")) });
    }
  }
}

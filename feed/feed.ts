/**
 * Port: how changes travel. One stream per service; one subject per aggregate; the stream keeps the newest message of
 * each subject. The server keeps no cursor for anybody: a reader says from where it wants to read, and its position lives in
 * its own database.
 *
 * Both adapters (feed/jetstream.ts, feed/memory.ts) pass tests/contract/feed.suite.ts. They guarantee:
 * - a publish with an expectation is stored only if the subject's last sequence is the expected one (0: no message);
 * - the very same message sent again inside the deduplication window is acknowledged with its first sequence;
 * - a reader gets every message that is still kept and has a sequence above its start, in rising sequence, without gaps
 *   that it is not told of: on any doubt the reading ends with an error and the caller starts again from its position.
 * An acknowledged publish is very likely stored, never certainly: the stream is a rebuildable cache of the databases.
 * Errors: E_FEED_UNAVAILABLE, E_FEED_CONFLICT, E_FEED_FULL, E_FEED_FORBIDDEN, E_FEED_MISCONFIGURED, E_IMAGE_TOO_LARGE,
 * E_ASK_UNANSWERED, E_OPERATION_INPUT.
 */

export interface FeedMessage {
  readonly subject: string;
  readonly sequence: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly payload: Uint8Array;
}

export interface Publication {
  readonly subject: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly payload: Uint8Array;
  /** Last sequence of the subject that the publisher knew before it read the rows; 0 for none. */
  readonly expected: number;
  /** Same id, same message: see "the very same message" above. */
  readonly id: string;
}

/** What became of a publish. A conflict is an expected outcome: read the rows again. */
export type Published =
  | { readonly stored: true; readonly sequence: number }
  /** `last` is the subject's real last sequence where the server says so. */
  | { readonly stored: false; readonly last: number | undefined };

export interface StreamState {
  /** When the stream was created, as the server writes it: changes when it is deleted and made again. */
  readonly created: string;
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly sizeBytes: number;
  readonly sizeBytesMax: number;
  readonly messages: number;
}

export interface ReadOptions {
  /** Subject filter, ending in ">" or exact. */
  readonly filter: string;
  /** Only messages with a sequence above this one. */
  readonly after: number;
  readonly headersOnly?: boolean;
  /**
   * Stop when everything stored so far was delivered, instead of waiting for more. An aggregate that was published again
   * meanwhile may be above the end of what was delivered: not having seen it is no proof that it does not exist.
   */
  readonly untilTip?: boolean;
  /** At most this many messages, and about this many bytes, in one batch. */
  readonly batchMessagesMax: number;
  readonly batchBytesMax: number;
}

export interface Feed {
  /** The service's stream name and the subjects under it. */
  readonly stream: string;
  /** Creates the stream if it is missing, checks its settings if it is there. Centre only. */
  ensureStream(): Promise<StreamState>;
  /** Centre only: sites are not allowed to ask. */
  state(): Promise<StreamState>;
  /** Publishes one message. Waits for the acknowledgement; the answer may be lost: then E_FEED_UNAVAILABLE. */
  publish(publication: Publication): Promise<Published>;
  /** The last message of a subject; undefined when there is none. */
  last(subject: string): Promise<FeedMessage | undefined>;
  /**
   * Reads batches until the signal aborts, or the tip is reached with `untilTip`. Each batch has at least one message, except
   * that one empty batch says "nothing for a while, the connection is healthy". Ends with an error when continuity is in doubt.
   */
  read(options: ReadOptions, signal: AbortSignal): AsyncIterable<readonly FeedMessage[]>;
  /** Publishes without storing guarantees: status reports. */
  report(subject: string, payload: Uint8Array): void;
  /** Removes the messages of one subject up to and including `sequence`. Centre only: how tombstones are collected. */
  purge(subject: string, sequence: number): Promise<void>;
  /**
   * Asks whoever serves `subject`. Nothing is stored; an answer may be lost after the question was acted upon.
   * @throws E_ASK_UNANSWERED after `timeoutMs`, or at once when nobody serves it; E_OPERATION_INPUT for a question that is larger
   * than the server takes
   */
  ask(subject: string, question: Uint8Array, timeoutMs: number): Promise<Uint8Array>;
  /**
   * Serves questions on `subject` (which may hold "*") over every reconnection, until the returned function is called or the
   * feed is closed. An `answer` that throws leaves the asker without one. At most ANSWERS_AT_ONCE_MAX are worked on at once,
   * further ones wait.
   */
  serve(subject: string, answer: (question: Uint8Array, askedOn: string) => Promise<Uint8Array>): () => void;
  /** Undefined while connected, else a sentence for the operator. */
  disconnected(): string | undefined;
  close(): Promise<void>;
}

/** Questions worked on at once by one serve(). */
export const ANSWERS_AT_ONCE_MAX = 8;

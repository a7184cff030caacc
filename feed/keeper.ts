/**
 * Makes a service's stream at the centre, checks the one that is there, and says how it stands.
 *
 * Invariants: a stream with settings that could lose images is refused, never changed; a safe one is only ever enlarged.
 * Scarce storage never stops the centre: the stream is then smaller, and the log says so.
 * Not here: which settings are safe (settings.ts). Outside fact: a server reserves a stream's whole size when it is made.
 */
import { jetstreamManager, JetStreamApiCodes, JetStreamApiError, type JetStreamManager,
  type StreamInfo } from "@nats-io/jetstream";
import { OperatingError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import { causeOf, lacksStorage, unavailable } from "./answers.ts";
import type { StreamState } from "./feed.ts";
import type { Link } from "./link.ts";
import { STREAM_BYTES_LEAST, stateOf, streamRepairs, streamSettings, unsafeSettings, type StreamWish } from "./settings.ts";
import { streamOf } from "./subjects.ts";

/** Part of the storage that fits which a stream takes when the server has less than configured. */
const SHARE_OF_SCARCE_STORAGE = 1 / 4;

type Wanted = ReturnType<typeof streamSettings>;

/** Looks after one service's stream, over a link that others use too. */
export class StreamKeeper {
  readonly #wish: StreamWish & { readonly timeoutMs: number };
  readonly #link: Link;
  readonly #log: Log;
  readonly #stream: string;

  constructor(wish: StreamWish & { readonly timeoutMs: number }, link: Link, log: Log) {
    this.#wish = wish;
    this.#link = link;
    this.#log = log;
    this.#stream = streamOf(wish.service);
  }

  /** Creates the stream if it is missing. @throws E_FEED_MISCONFIGURED naming every unsafe setting of one that is there. */
  async ensure(): Promise<StreamState> {
    const found = await this.#find();
    if (found === undefined) return this.#create();
    const wanted = this.#settings(await this.#wishedBytes());
    const faults = unsafeSettings(found.config, wanted);
    if (faults.length > 0) {
      throw new OperatingError("E_FEED_MISCONFIGURED", `stream ${this.#stream}: ${faults.join("; ")}`, { stream: this.#stream });
    }
    return this.#repair(found, wanted);
  }

  /** How the stream stands. @throws E_FEED_UNAVAILABLE when there is none. */
  async state(): Promise<StreamState> {
    const found = await this.#find();
    if (found === undefined) throw unavailable(`stream ${this.#stream} does not exist`, { stream: this.#stream });
    return stateOf(found);
  }

  #settings(sizeBytesMax: number): Wanted {
    return streamSettings({ ...this.#wish, sizeBytesMax });
  }

  async #find(): Promise<StreamInfo | undefined> {
    try {
      return await this.#managed("asking for the stream", (manager) => manager.streams.info(this.#stream));
    } catch (error) {
      const cause = causeOf(error);
      if (cause instanceof JetStreamApiError && cause.code === JetStreamApiCodes.StreamNotFound) return undefined;
      throw error;
    }
  }

  /**
   * Where the server has less storage than wished, halves the size until it fits and then keeps only a share of that, because
   * other services' streams need theirs.
   */
  async #create(): Promise<StreamState> {
    const wished = await this.#wishedBytes();
    for (let sizeBytesMax = wished; ; sizeBytesMax = Math.floor(sizeBytesMax / 2)) {
      const share = Math.max(Math.floor(sizeBytesMax * SHARE_OF_SCARCE_STORAGE), STREAM_BYTES_LEAST);
      const scarce = sizeBytesMax < wished && share < sizeBytesMax;
      try {
        const made = await this.#managed("making the stream", async (manager) => {
          const first = await manager.streams.add(this.#settings(sizeBytesMax));
          return scarce ? manager.streams.update(this.#stream, { max_bytes: share }) : first;
        });
        return this.#stateNoted(made);
      } catch (error) {
        if (!lacksStorage(causeOf(error)) || sizeBytesMax / 2 < STREAM_BYTES_LEAST) throw error;
      }
    }
  }

  /** Brings a safe stream's settings up to what is wanted, except for a size that the server has no storage for. */
  async #repair(found: StreamInfo, wanted: Wanted): Promise<StreamState> {
    try {
      return this.#stateNoted(await this.#update(found, wanted));
    } catch (error) {
      if (!lacksStorage(causeOf(error))) throw error;
      return this.#stateNoted(await this.#update(found, { ...wanted, max_bytes: found.config.max_bytes }));
    }
  }

  async #update(found: StreamInfo, wanted: Wanted): Promise<StreamInfo> {
    const repairs = streamRepairs(found.config, wanted);
    if (repairs === undefined) return found;
    const updated = await this.#managed("updating the stream", (manager) => manager.streams.update(this.#stream, repairs));
    this.#log.info("the stream's settings were brought up to date", { stream: this.#stream, settings: JSON.stringify(repairs) });
    return updated;
  }

  #stateNoted(made: StreamInfo): StreamState {
    if (made.config.max_bytes < this.#wish.sizeBytesMax) {
      this.#log.warn("the stream is smaller than configured: the server or the account has not enough storage for it",
        { stream: this.#stream, sizeBytesMax: made.config.max_bytes, sizeBytesWished: this.#wish.sizeBytesMax });
    }
    return stateOf(made);
  }

  /** What is configured, or less where the account has a limit of its own. */
  async #wishedBytes(): Promise<number> {
    const { limits } = await this.#managed("asking for the account's limits", (manager) => manager.getAccountInfo());
    const allowed = [limits.max_storage, limits.storage_max_stream_bytes].filter((bytes) => bytes > 0);
    return Math.min(this.#wish.sizeBytesMax, ...allowed);
  }

  #managed<T>(step: string, work: (manager: JetStreamManager) => Promise<T>): Promise<T> {
    return this.#link.call(step, async (connection) =>
      work(await jetstreamManager(connection, { checkAPI: false, timeout: this.#wish.timeoutMs })));
  }
}

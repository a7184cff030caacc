/**
 * Connections to one database. Sequelize owns them: it makes, checks, lends and retires them; a session of ours is what it hands
 * out. Transactions are begun and ended here with single statements, because Sequelize 6's own way cannot be bounded in time
 * (a frozen server would hold the caller for ever), costs a second round trip, and prints lost commits to the console.
 *
 * Invariants: a connection is lent to one user at a time and comes back idle, outside any transaction, or not at all; every
 * wait for the server ends.
 * Not here: what runs inside a transaction (turn.ts), what errors mean (the engine).
 */
import { Sequelize, type Options } from "sequelize";
import type { Clock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import { failureError, type DatabaseSettings, type Engine, type Statement } from "./dialect.ts";

/** How long beyond the server's own bound a statement may stay unanswered before its connection is cut. */
const ANSWER_GRACE_MS = 2_000;
/** An idle connection is given up after this long. */
const IDLE_MS = 60_000;

/** How long a statement may stay unanswered at most: then its connection is given up. */
export function queryBoundMs(settings: DatabaseSettings): number {
  return settings.statementTimeoutMs + ANSWER_GRACE_MS;
}

/**
 * What drivers and servers (SQLSTATE 57P01 to 57P03, MariaDB 1053 and 1927) say when a connection that was there is ended;
 * unlike after a refused one, another may be had at once.
 */
const BROKE_OFF = /RESET|EPIPE|CONNECTION_LOST|terminated|closed|not queryable|^57P0[123]$|^1053$|^1927$/;

/** The part of Sequelize that lends connections; its published types leave it out. */
interface Lender<Connection> {
  getConnection(): Promise<Connection>;
  /** How the pool takes leave of a connection. */
  disconnect: (connection: Connection) => Promise<void>;
  releaseConnection(connection: Connection): void;
  destroyConnection(connection: Connection): Promise<void>;
}

/** The driver's error inside Sequelize's, where there is one. */
function driverError(error: unknown): unknown {
  return error instanceof Error && "original" in error && error.original instanceof Error ? error.original : error;
}

/** Lends connections for transactions; `Connection` is the driver's own. */
export class Pool<Connection> {
  readonly #engine: Engine<Connection>;
  readonly #settings: DatabaseSettings;
  readonly #clock: Clock;
  readonly #sequelize: Sequelize;
  readonly #lender: Lender<Connection>;
  #isClosed = false;

  constructor(engine: Engine<Connection>, settings: DatabaseSettings, clock: Clock, options: Options) {
    this.#engine = engine;
    this.#settings = settings;
    this.#clock = clock;
    const { database, user: username, password, port, poolMax: max, statementTimeoutMs: acquire } = settings;
    const sequelizeOptions = { ...options, database, username, password: password.reveal(), port, logging: false as const,
      // Our own session statements say all of this, bounded in time; Sequelize's would not be.
      keepDefaultTimezone: true, standardConformingStrings: false, databaseVersion: engine.sequelizeVersion,
      pool: { max, min: 0, acquire, idle: IDLE_MS, evict: IDLE_MS } };
    this.#sequelize = new Sequelize(sequelizeOptions);
    this.#sequelize.addHook("afterConnect", (connection: unknown) => this.#greet(connection as Connection));
    this.#lender = (this.#sequelize as unknown as { readonly connectionManager: Lender<Connection> }).connectionManager;
    // The pool does not look at what becomes of a farewell: one that fails, as with a broken connection, would end the process.
    this.#lender.disconnect = (connection) => this.#part(connection);
  }

  /**
   * A connection on which `begin` has run. An idle connection may have died with a restarted server: it is left behind and
   * another one taken, as often as the pool is large.
   * @throws E_ROWS_UNAVAILABLE
   */
  async begin(begin: readonly string[]): Promise<Connection> {
    for (let broken = 0; ; broken++) {
      try {
        return await this.#beginOnce(begin);
      } catch (error) {
        const failure = this.failure(error);
        const { reason, sqlState, errorNumber } = failure instanceof OperatingError ? failure.facts : {};
        if (this.#isClosed || broken >= this.#settings.poolMax || !BROKE_OFF.test(String(reason ?? sqlState ?? errorNumber))) {
          throw failure;
        }
      }
    }
  }

  async #beginOnce(begin: readonly string[]): Promise<Connection> {
    if (this.#isClosed) throw new OperatingError("E_ROWS_UNAVAILABLE", "the row store is closed");
    const connection = await this.#lender.getConnection();
    try {
      for (const text of begin) await this.run(connection, { text, values: [] });
      return connection;
    } catch (error) {
      await this.discard(connection);
      throw error;
    }
  }

  /**
   * Commits. @throws E_ROWS_COMMIT_UNKNOWN when the answer is lost; what the server answers otherwise.
   */
  async commit(connection: Connection): Promise<void> {
    try {
      await this.run(connection, { text: "COMMIT", values: [] });
    } catch (error) {
      await this.discard(connection);
      const failure = this.failure(error);
      if (failure instanceof OperatingError && failure.code === "E_ROWS_UNAVAILABLE") {
        throw failureError({ code: "E_ROWS_COMMIT_UNKNOWN", facts: failure.facts });
      }
      throw failure;
    }
    this.#lender.releaseConnection(connection);
  }

  /** Rolls back. Never fails: a connection that cannot even do that is thrown away. */
  async rollback(connection: Connection): Promise<void> {
    try {
      await this.run(connection, { text: "ROLLBACK", values: [] });
    } catch {
      return this.discard(connection);
    }
    this.#lender.releaseConnection(connection);
  }

  /** Throws the connection away without a word to the server. */
  async discard(connection: Connection): Promise<void> {
    this.#engine.sever(connection);
    await this.#lender.destroyConnection(connection);
  }

  /** Runs one statement; the connection is cut when no answer comes in time. Throws the driver's error. */
  run(connection: Connection, statement: Statement): ReturnType<Engine<Connection>["run"]> {
    return this.#within(this.#engine.run(connection, statement), () => this.#engine.sever(connection));
  }

  /** The operating error behind an error of Sequelize or of the driver; anything else is a bug and stays what it is. */
  failure(error: unknown): unknown {
    if (error instanceof OperatingError) return error;
    const failure = this.#engine.failureOf(driverError(error));
    if (failure !== undefined) return failureError(failure);
    if (this.#isClosed) return new OperatingError("E_ROWS_UNAVAILABLE", "the row store is closed");
    const isConnecting = error instanceof Error && /^SequelizeConnection/.test(error.name);
    return isConnecting ? new OperatingError("E_ROWS_UNAVAILABLE", "no connection to the database in time") : error;
  }

  /** Waits for what is lent, then closes every connection. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#sequelize.close();
  }

  /** Says goodbye to the server if it listens, and closes the connection in any case. Never fails. */
  async #part(connection: Connection): Promise<void> {
    await this.#within(this.#engine.part(connection).catch(() => undefined), () => this.#engine.sever(connection));
    this.#engine.sever(connection);
  }

  /** Makes a new connection a session of ours, or closes it. */
  async #greet(connection: Connection): Promise<void> {
    for (const { text, optional } of this.#engine.session(this.#settings)) {
      try {
        await this.run(connection, { text, values: [] });
      } catch (error) {
        if (optional && this.#engine.failureOf(error)?.code !== "E_ROWS_UNAVAILABLE") continue;
        this.#engine.sever(connection);
        throw error;
      }
    }
  }

  /** The answer; `late` is done when it takes longer than any answer may. */
  #within<T>(answer: Promise<T>, late: () => void): Promise<T> {
    return answer.finally(this.#clock.after(queryBoundMs(this.#settings), late));
  }
}

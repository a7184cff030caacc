/**
 * The row store over a relational engine, the part that PostgreSQL and MariaDB share: transactions from begin to end, the live
 * catalogue, Holdfast's own tables and counters. Statements run set-based on the connection of the transaction, past
 * Sequelize's own query path, which costs more time than the database.
 *
 * Invariants: after an error outside a savepoint, and after contention or a lost connection anywhere, a transaction can only
 * fail: a server may already have rolled it back, and later statements would be stored on their own. A commit whose answer
 * is lost is E_ROWS_COMMIT_UNKNOWN and nothing else. Every statement ends: the server bounds it, and a little later the
 * connection is cut. Rows are cut to the columns' precision before they are sent.
 * Not here: SQL (…-sql.ts), what errors mean (postgres.ts, mariadb.ts), repeating anything (the caller knows what is safe).
 */
import type { Options } from "sequelize";
import { assert, present } from "../core/assert.ts";
import type { Clock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import type { World } from "../core/world.ts";
import type { Service, Table } from "../schemas/define.ts";
import type { Row } from "../schemas/row.ts";
import {
  shortFractions, type Catalog, type DatabaseOptions, type DatabaseSettings, type Engine, type Target,
} from "./dialect.ts";
import { Pool } from "./relational-pool.ts";
import type { LiveTable, RowReader, Rows, RowWriter } from "./rows.ts";
import { MARKS_TABLE } from "./trigger-plan.ts";
import { relationalTriggers, type RowTriggers } from "./triggers.ts";
import { Turn } from "./turn.ts";
import { cutRow, type ShortFractions } from "./wire.ts";

const POOL_MAX = 8;
const STATEMENT_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 5_000;
/** The options with defaults; a lock is waited for half as long as a statement. */
export function settingsOf(options: DatabaseOptions): DatabaseSettings {
  const statementTimeoutMs = options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS;
  return { ...options, statementTimeoutMs, lockTimeoutMs: Math.ceil(statementTimeoutMs / 2), poolMax: options.poolMax ?? POOL_MAX,
    connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS };
}

class RelationalRows<Connection> implements Rows {
  readonly engine: "postgres" | "mariadb";
  readonly #engine: Engine<Connection>;
  readonly #settings: DatabaseSettings;
  readonly #clock: Clock;
  readonly #pool: Pool<Connection>;
  #catalog: Promise<Catalog> | undefined;
  #short: ReadonlyMap<string, ShortFractions> | undefined;

  constructor(engine: Engine<Connection>, settings: DatabaseSettings, clock: Clock, options: Options) {
    this.engine = engine.name;
    this.#engine = engine;
    this.#settings = settings;
    this.#clock = clock;
    this.#pool = new Pool(engine, settings, clock, options);
  }

  async snapshot<T>(work: (read: RowReader) => Promise<T>): Promise<T> {
    await this.#reflected();
    return this.#inTransaction("snapshot", work);
  }

  async transaction<T>(work: (write: RowWriter) => Promise<T>): Promise<T> {
    await this.#reflected();
    return this.#inTransaction("write", work);
  }

  async reflect(): Promise<readonly LiveTable[]> {
    this.#catalog = undefined;
    return (await this.#reflected()).tables;
  }

  async revisions(table: string, column: string): Promise<readonly string[]> {
    const { quote } = this.#engine.dialect;
    const rows = await this.#inTransaction("snapshot", (turn) =>
      turn.run({ text: `SELECT ${quote(column)} FROM ${quote(table)}`, values: [] }, table));
    return rows.map((cells) => String(cells[0]));
  }

  async ensureTables(tables: readonly Table[]): Promise<void> {
    await this.#changingSchema(async (turn) => {
      for (const table of tables) await turn.run(this.#engine.dialect.createTable(table), table.name);
    });
    this.#catalog = undefined;
  }

  async ensureCounter(table: Table, first: number): Promise<void> {
    const column = present(table.counted, `${table.name} has a counted key`);
    const target = targetIn(await this.#reflected(), table);
    await this.#changingSchema((turn) =>
      this.#engine.raiseCounter((statement) => turn.run(statement, table.name), target, column, first));
  }

  triggers(service: Service): RowTriggers {
    const { dialect, triggers } = this.#engine;
    return relationalTriggers(service, {
      dialect: triggers, createTable: dialect.createTable(MARKS_TABLE), reflect: () => this.reflect(),
      reading: (work) => this.#inTransaction("snapshot", (turn) => work((statement) => turn.run(statement))),
      changing: async (work) => {
        await this.#changingSchema((turn) => work((statement) => turn.run(statement)));
        this.#catalog = undefined;
      },
    });
  }

  fit(table: Table, row: Row): Row {
    const short = present(this.#short, "fit() is called after reflect()").get(table.name);
    return short === undefined ? row : cutRow(row, short);
  }

  async ping(): Promise<boolean> {
    const asked = this.#inTransaction("snapshot", (turn) => turn.run({ text: "SELECT 1", values: [] }));
    let cancel = (): void => undefined;
    const late = new Promise<boolean>((resolve) => {
      cancel = this.#clock.after(this.#settings.connectTimeoutMs, () => resolve(false));
    });
    return Promise.race([asked.then(() => true, () => false), late]).finally(cancel);
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  async #inTransaction<T>(mode: "snapshot" | "write", work: (turn: Turn<Connection>) => Promise<T>): Promise<T> {
    const connection = await this.#pool.begin(this.#engine.begin[mode]);
    const turn: Turn<Connection> = new Turn(this.#engine, {
      send: (statement) => this.#pool.run(connection, statement), targetOf: (table) => this.#target(table, turn),
    });
    let result: T;
    try {
      result = await work(turn);
      await turn.finish();
    } catch (error) {
      await turn.settled();
      await (turn.isLost ? this.#pool.discard(connection) : this.#pool.rollback(connection));
      throw error;
    }
    // A snapshot changed nothing: either end is right, and a lost answer to this one loses nothing.
    await (mode === "snapshot" ? this.#pool.rollback(connection) : this.#pool.commit(connection));
    return result;
  }

  /** Runs schema work while no other process does any. */
  async #changingSchema(work: (turn: Turn<Connection>) => Promise<void>): Promise<void> {
    const { take, release } = this.#engine.schemaLock;
    await this.#inTransaction("write", async (turn) => {
      await turn.run({ text: take, values: [] });
      try {
        await work(turn);
      } finally {
        if (release !== undefined && !turn.isLost) await turn.runAlways({ text: release, values: [] });
      }
    });
  }

  /** The catalogue, read on first use, in a transaction of its own. */
  #reflected(): Promise<Catalog> {
    if (this.#catalog !== undefined) return this.#catalog;
    const reading = this.#inTransaction("snapshot", (turn) => this.#readCatalog(turn));
    this.#catalog = reading;
    // A failure is for those who wait now; the next one asks again.
    reading.catch(() => {
      if (this.#catalog === reading) this.#catalog = undefined;
    });
    return reading;
  }

  async #readCatalog(turn: Turn<Connection>): Promise<Catalog> {
    const catalog = await this.#engine.reflect((statement) => turn.run(statement));
    this.#short = new Map([...catalog.facts].map(([name, facts]) => [name, shortFractions(facts)]));
    return catalog;
  }

  /** The table with its live columns. For a table that is new the turn reads the catalogue again, on its own connection. */
  async #target(table: Table, turn: Turn<Connection>): Promise<Target> {
    let catalog = await this.#reflected();
    if (!catalog.facts.has(table.name)) {
      catalog = await this.#readCatalog(turn);
      this.#catalog = Promise.resolve(catalog);
    }
    return targetIn(catalog, table);
  }
}

function targetIn(catalog: Catalog, table: Table): Target {
  const facts = catalog.facts.get(table.name);
  if (facts === undefined) throw new OperatingError("E_SCHEMA_MISMATCH", "the table does not exist", { table: table.name });
  const column = Object.keys(table.columns).find((name) => !facts.has(name));
  if (column === undefined) return { table, facts };
  throw new OperatingError("E_SCHEMA_MISMATCH", "the column does not exist", { table: table.name, column });
}

/** Opens a row store; `options` are Sequelize's, for what differs between engines. */
export function openRelational<Connection>(engine: Engine<Connection>, settings: DatabaseSettings, world: World,
  options: Options): Rows {
  assert(settings.engine === engine.name, `${settings.engine} options for ${engine.name}`);
  return new RelationalRows(engine, settings, world.clock, options);
}

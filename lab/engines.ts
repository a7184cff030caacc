/**
 * Port: a database server of the lab, the same words for both engines. Names of databases are the lab's own, so they are
 * written into statements as they are.
 */
import type { EngineName } from "./options.ts";
import type { ProcessPlan } from "./processes.ts";

export interface DatabaseServer {
  readonly engine: EngineName;
  readonly plan: ProcessPlan;
  /** Makes the empty storage before the first start; false when it is there. */
  prepare(): Promise<boolean>;
  /**
   * Runs SQL text and gives the rows: one line each, values separated by "|" (PostgreSQL) or tabs (MariaDB).
   * @param log  receives the messages; the lab's log of preparations unless said otherwise.
   */
  query(database: string, sql: string, log?: string): Promise<string>;
  /** An empty database; one of that name is dropped first. */
  createEmpty(database: string): Promise<void>;
  dropDatabase(database: string): Promise<void>;
  /** One consistent snapshot as SQL text, without Holdfast's own tables. */
  dump(database: string, file: string): Promise<void>;
  /** Fills an empty database from such a file. */
  restore(database: string, file: string): Promise<void>;
  /** The database in the form that OpenStack services take in [database] connection. */
  serviceUrl(database: string): string;
}

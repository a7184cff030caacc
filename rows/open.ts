/** From the database section of a configuration to an open row store: every process reads it the same way. */
import { Secret } from "../core/secret.ts";
import type { World } from "../core/world.ts";
import type { DatabaseOptions } from "./dialect.ts";
import { openMariadb } from "./mariadb.ts";
import { openPostgres } from "./postgres.ts";
import type { Rows } from "./rows.ts";

const DEFAULT_PORTS = { postgres: 5432, mariadb: 3306 } as const;

/** What a configuration file says about a database (config/options.ts). */
export interface DatabaseSection {
  readonly engine: "postgres" | "mariadb";
  readonly host: string | undefined;
  readonly socketPath: string | undefined;
  readonly port: number | undefined;
  readonly name: string;
  readonly user: string;
  readonly password: Secret | undefined;
  readonly poolMax: number;
  readonly connectTimeoutMs: number;
  readonly statementTimeoutMs: number;
}

/** Opens the database without reaching for it: what is away is found out by the first call. */
export function openRows(section: DatabaseSection, world: World): Rows {
  const options: DatabaseOptions = {
    engine: section.engine, host: section.host, socketPath: section.socketPath,
      port: section.port ?? DEFAULT_PORTS[section.engine],
    database: section.name, user: section.user, password: section.password ?? new Secret(""),
    poolMax: section.poolMax, connectTimeoutMs: section.connectTimeoutMs, statementTimeoutMs: section.statementTimeoutMs,
  };
  return section.engine === "postgres" ? openPostgres(options, world) : openMariadb(options, world);
}

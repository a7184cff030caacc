/** From the name of an engine to the lab's server of it, run as the system user that Debian's package made. */
import { readFileSync } from "node:fs";
import { OperatingError } from "../core/errors.ts";
import type { SystemUser } from "./commands.ts";
import type { DatabaseServer } from "./engines.ts";
import { MariadbServer } from "./mariadb.ts";
import type { EngineName } from "./options.ts";
import { PostgresServer } from "./postgres.ts";
import type { LabRecord } from "./record.ts";

/** The system user `name`, from /etc/passwd. @throws E_LAB_MACHINE when there is none. */
function systemUser(name: string): SystemUser {
  const entries = readFileSync("/etc/passwd", "utf8").split("\n").map((line) => line.split(":"));
  const fields = entries.find(([user]) => user === name);
  if (fields === undefined) throw new OperatingError("E_LAB_MACHINE", `the system user ${name} does not exist`);
  return { uid: Number(fields[2]), gid: Number(fields[3]) };
}

/** The lab's server of `engine`. */
export function serverOf(record: LabRecord, engine: EngineName): DatabaseServer {
  switch (engine) {
    case "postgres": return new PostgresServer(record, systemUser("postgres"));
    case "mariadb": return new MariadbServer(record, systemUser("mysql"));
  }
}

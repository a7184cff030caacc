/**
 * Where a cloud's first rows come from. The centre's come from the template. A site's are a snapshot of the centre's, with the
 * same identifiers: a site that bootstrapped itself would hold a second administrator, second roles and a second catalogue under
 * the same names. Holdfast's own tables are never copied: what a site applied is the site's own knowledge.
 *
 * Each preparation ends with a mark; without its mark it starts again from an empty database.
 */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { OperatingError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { run } from "./commands.ts";
import type { DatabaseServer } from "./engines.ts";
import { readIfThere, writeWhole } from "./files.ts";
import type { Credentials } from "./identity.ts";
import { copyKeys, keysOf } from "./keystone.ts";
import { CENTRE, CLOUDS, type CloudName } from "./options.ts";
import { databaseOf, endpointsOf, pathsOf, type LabRecord } from "./record.ts";
import { ADMIN_PROJECT, ADMIN_USER, placeholderUrl, regionsOf, templateFor } from "./template.ts";

const COPY_PROGRAM = fileURLToPath(new URL("./copy_rows.py", import.meta.url));

function markOf(record: LabRecord, cloud: CloudName): string {
  return join(pathsOf(record).done, `database-${cloud}`);
}

/** Has the cloud its database and keys? */
export function isSeeded(record: LabRecord, cloud: CloudName): boolean {
  return existsSync(markOf(record, cloud));
}

function adminFileOf(record: LabRecord): string {
  return join(pathsOf(record).config, "admin-password");
}

/** The administrator of both clouds. @throws E_LAB_STEP before the centre has its database. */
export function adminOf(record: LabRecord): Credentials & { readonly project: string } {
  const password = readIfThere(adminFileOf(record));
  if (password === undefined) throw new OperatingError("E_LAB_STEP", "the lab was never started: it has no administrator yet");
  return { user: ADMIN_USER, password: new Secret(password), project: ADMIN_PROJECT };
}

/** Gives the centre its database and keys from the template; the catalogue then names this lab's addresses. */
export async function seedCentre(record: LabRecord, server: DatabaseServer): Promise<boolean> {
  if (isSeeded(record, CENTRE)) return false;
  const template = await templateFor(server, pathsOf(record).prepareLog);
  const { name } = databaseOf(record, CENTRE);
  await server.createEmpty(name);
  await server.restore(name, template.dump);
  for (const cloud of CLOUDS) {
    const [regions, endpoints] = [regionsOf(cloud), endpointsOf(record, cloud)];
    for (const way of ["proxy", "direct"] as const) {
      const [placeholder, url] = [placeholderUrl(regions[way]), endpoints[way]];
      await server.query(name, `UPDATE endpoint SET url = replace(url, '${placeholder}', '${url}');`);
    }
  }
  copyKeys(template.keys, keysOf(record, CENTRE));
  writeWhole(adminFileOf(record), template.adminPassword.reveal());
  writeFileSync(markOf(record, CENTRE), "");
  return true;
}

/** Gives a site its database and keys from the centre's as they are now; between different engines row by row. */
export async function seedSite(record: LabRecord, site: CloudName, centre: DatabaseServer, server: DatabaseServer):
Promise<boolean> {
  if (isSeeded(record, site)) return false;
  const from = databaseOf(record, CENTRE).name;
  const { name } = databaseOf(record, site);
  const log = pathsOf(record).prepareLog;
  await server.createEmpty(name);
  if (centre.engine === server.engine) {
    const snapshot = join(pathsOf(record).config, `seed-${site}.sql`);
    await centre.dump(from, snapshot);
    await server.restore(name, snapshot);
    rmSync(snapshot);
  } else {
    // The template is this engine's own migrated schema; the program replaces its rows.
    await server.restore(name, (await templateFor(server, log)).dump);
    const environment = { FROM_URL: centre.serviceUrl(from), TO_URL: server.serviceUrl(name) };
    await run(["/usr/bin/python3", COPY_PROGRAM], { log, environment });
  }
  copyKeys(keysOf(record, CENTRE), keysOf(record, site));
  writeFileSync(markOf(record, site), "");
  return true;
}

/**
 * A migrated and bootstrapped Keystone database per engine, made once per machine and version and kept as a dump with the keys
 * that belong to it. Making one takes longer than all the rest of a lab's start; restoring it takes a second.
 *
 * All labs of a machine thus share keys and the administrator's password. They are labs, on the loopback interface.
 * A template appears under its final name only when it is complete; whoever is second to finish drops his own.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { systemRandom } from "../core/random.ts";
import { Secret } from "../core/secret.ts";
import { run } from "./commands.ts";
import type { DatabaseServer } from "./engines.ts";
import { ensureFolder } from "./files.ts";
import { keystoneConfiguration, type KeyFolders } from "./keystone.ts";
import { CLOUDS, type CloudName } from "./options.ts";
import { versionOf } from "./packages.ts";

const CACHE = "/var/tmp/holdfast-lab-cache";
/** Raised when what a template holds changes. */
const RECIPE = 2;
export const ADMIN_USER = "admin";
export const ADMIN_PROJECT = "admin";

export interface Template {
  /** SQL text of the database, in the engine's own dialect. */
  readonly dump: string;
  readonly keys: KeyFolders;
  readonly adminPassword: Secret;
}

/**
 * Regions of the one catalogue: each cloud's own, where its proxy is, and one beside it whose only endpoint is past the
 * proxy. The openstack command asks the catalogue where Keystone is, whatever its auth_url says, so without the second
 * region nobody could look at a cloud's own Keystone with it.
 */
export function regionsOf(cloud: CloudName): { readonly proxy: string; readonly direct: string } {
  return { proxy: cloud, direct: `${cloud}-direct` };
}

/** What a template's catalogue holds where a lab's has an address. */
export function placeholderUrl(region: string): string {
  return `http://${region}.holdfast.invalid`;
}

function templateIn(folder: string): Template {
  return { dump: join(folder, "keystone.sql"), keys: { fernet: join(folder, "fernet"), credential: join(folder, "credential") },
    adminPassword: new Secret(readFileSync(join(folder, "admin-password"), "utf8")) };
}

/**
 * The template of the server's engine, made now if the machine has none.
 * @param log  receives what the preparing commands say.
 */
export async function templateFor(server: DatabaseServer, log: string): Promise<Template> {
  ensureFolder(CACHE, 0o700);
  const version = await versionOf("python3-keystone", log);
  const folder = join(CACHE, `${server.engine}-${version.replaceAll(/[^0-9A-Za-z.+~-]/g, "_")}-${RECIPE}`);
  if (!existsSync(folder)) {
    const unfinished = mkdtempSync(join(CACHE, "unfinished-"));
    try {
      await makeTemplate(server, unfinished, log);
      publish(unfinished, folder);
    } finally {
      rmSync(unfinished, { recursive: true, force: true });
    }
  }
  return templateIn(folder);
}

function publish(unfinished: string, folder: string): void {
  try {
    renameSync(unfinished, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error;
  }
}

async function makeTemplate(server: DatabaseServer, folder: string, log: string): Promise<void> {
  const keys = { fernet: join(folder, "fernet"), credential: join(folder, "credential") };
  for (const each of Object.values(keys)) mkdirSync(each, { mode: 0o700 });
  const password = systemRandom.id().replaceAll("-", "");
  writeFileSync(join(folder, "admin-password"), password, { mode: 0o600 });
  const database = "keystone_template";
  const configuration = join(folder, "keystone.conf");
  writeFileSync(configuration, keystoneConfiguration({ database: server.serviceUrl(database), keys }), { mode: 0o600 });
  const manage = (...words: readonly string[]): Promise<string> =>
    run(["keystone-manage", "--config-file", configuration, ...words], { log });

  await server.createEmpty(database);
  await manage("db_sync");
  for (const setup of ["fernet_setup", "credential_setup"]) {
    await manage(setup, "--keystone-user", "root", "--keystone-group", "root");
  }
  // Bootstrap is idempotent: every run after the first only adds a region and its endpoints to the one catalogue.
  const bootstrap = async (region: string, interfaces: readonly string[]): Promise<void> => void await manage("bootstrap",
    "--bootstrap-username", ADMIN_USER, "--bootstrap-password", password, "--bootstrap-project-name", ADMIN_PROJECT,
    "--bootstrap-role-name", "admin", "--bootstrap-service-name", "keystone", "--bootstrap-region-id", region,
    ...interfaces.flatMap((name) => [`--bootstrap-${name}-url`, `${placeholderUrl(region)}/v3`]));
  for (const { proxy, direct } of CLOUDS.map(regionsOf)) {
    await bootstrap(proxy, ["public", "internal", "admin"]);
    await bootstrap(direct, ["public"]);
  }
  await server.dump(database, join(folder, "keystone.sql"));
  await server.dropDatabase(database);
  rmSync(configuration);
}

/**
 * The files of a service as they lie on the disk: key repositories read and changed key by key, configuration files read. The
 * only place that touches them.
 *
 * Invariants: who reads a repository at any moment finds whole keys only, each with the right owner before it has its name; every
 * step is on the disk before the next one begins; what is being written lies in a folder of ours inside the repository, because
 * the service opens every file that it sees there and fails when one goes away under its hands (seen in Keystone 22). Reading
 * gives what two looks in a row agree on: a tool that rotates in between would otherwise show a set that never was.
 * Outside fact: the service ignores folders and names that are no numbers. Not here: what is written in which order (key-set.ts).
 */
import { constants } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { OperatingError, type ErrorCode } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { KEYS_MAX, type KeyStep } from "./key-set.ts";

/** Where keys are written before they get their names. */
const WORKING_FOLDER = ".holdfast";
const KEY_BYTES_MAX = 1_024;
const CONFIGURATION_BYTES_MAX = 1024 * 1024;
/** Looks until two in a row agree. */
const LOOKS_MAX = 10;
const OWNER_ONLY = 0o600;
const OWNER_AND_GROUP = 0o640;

export interface KeyFiles {
  /** Texts of the files that are named by a number, whatever they hold. */
  readonly keys: ReadonlyMap<number, Secret>;
  /** When each got its name or was changed last. */
  readonly changedMs: ReadonlyMap<number, number>;
}

function failed(code: ErrorCode, path: string, error: unknown): OperatingError {
  const reason = error instanceof Error && "code" in error ? String(error.code) : String(error);
  const said = reason === "ENOENT" ? "it is not there" : reason === "EACCES" || reason === "EPERM" ? "no permission" : reason;
  return new OperatingError(code, `${path}: ${said}`, { path });
}

/** True for failures of the system, which the operator puts right; anything else is a bug. */
function isOfSystem(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}

async function onDisk<T>(code: ErrorCode, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isOfSystem(error)) throw error;
    throw failed(code, path, error);
  }
}

/** The text of a configuration file. @throws E_SETTINGS_UNREADABLE */
export function readConfigurationFile(path: string): Promise<string> {
  return onDisk("E_SETTINGS_UNREADABLE", path, async () => {
    const { size } = await stat(path);
    if (size > CONFIGURATION_BYTES_MAX) throw new OperatingError("E_SETTINGS_UNREADABLE", `${path}: ${size} bytes`, { path });
    return readFile(path, "utf8");
  });
}

/** A key repository as it is. @throws E_KEYS_UNUSABLE when it cannot be read, or does not keep still */
export function readKeyFolder(folder: string): Promise<KeyFiles> {
  return onDisk("E_KEYS_UNUSABLE", folder, async () => {
    let before: string | undefined;
    for (let look = 0; look < LOOKS_MAX; look += 1) {
      const files = await lookAt(folder).catch((error: unknown) => {
        // Removed between two steps of the look: look again.
        if (isOfSystem(error) && before !== undefined) return undefined;
        throw error;
      });
      const seen = JSON.stringify([...files?.keys ?? []].map(([number, key]) => [number, key.reveal()]));
      if (files !== undefined && seen === before) return files;
      before = seen;
    }
    throw new OperatingError("E_KEYS_UNUSABLE", `${folder}: it changes all the time`, { path: folder });
  });
}

async function lookAt(folder: string): Promise<KeyFiles> {
  const names = (await readdir(folder)).filter((name) => /^\d{1,9}$/.test(name))
    .sort((left, right) => Number(left) - Number(right));
  if (names.length > KEYS_MAX) throw new OperatingError("E_KEYS_UNUSABLE", `${folder}: ${names.length} keys`, { path: folder });
  const keys = new Map<number, Secret>();
  const changedMs = new Map<number, number>();
  for (const name of names) {
    const path = join(folder, name);
    const { ctimeMs, mtimeMs, size } = await stat(path);
    if (size > KEY_BYTES_MAX) throw new OperatingError("E_KEYS_UNUSABLE", `${path}: ${size} bytes are no key`, { path });
    keys.set(Number(name), new Secret((await readFile(path, "utf8")).trim()));
    changedMs.set(Number(name), Math.max(ctimeMs, mtimeMs));
  }
  return { keys, changedMs };
}

/** Carries out steps in their order. Dying after any of them, or within one, leaves a good repository. @throws E_KEYS_UNUSABLE */
export function carryOut(folder: string, steps: readonly KeyStep[]): Promise<void> {
  return onDisk("E_KEYS_UNUSABLE", folder, async () => {
    for (const step of steps) {
      if (step.do === "write") await writeKey(folder, step.number, step.key);
      else await rm(join(folder, String(step.number)), { force: true });
      await syncFolder(folder);
    }
  });
}

async function writeKey(folder: string, number: number, key: Secret): Promise<void> {
  const owner = await stat(folder);
  const working = join(folder, WORKING_FOLDER);
  await mkdir(working, { recursive: true, mode: 0o700 });
  const path = join(working, String(number));
  await rm(path, { force: true });
  const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, OWNER_ONLY);
  try {
    await file.writeFile(key.reveal());
    const made = await file.stat();
    if (made.uid !== owner.uid || made.gid !== owner.gid) {
      // Root gives the key to the folder's owner; anybody else can only let the folder's group read it.
      const isGiven = await file.chown(owner.uid, owner.gid).then(() => true, () => false);
      if (!isGiven) {
        await file.chown(made.uid, owner.gid);
        await file.chmod(OWNER_AND_GROUP);
      }
    }
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(path, join(folder, String(number)));
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * The disk as the intent journal sees it: one folder of append files and a lock. Small, so that the simulator can put a disk
 * of its own here that fills up, tears writes and forgets what was not synced.
 *
 * Invariants: a file made by `create` survives a crash as soon as it resolves (the folder is synced); one folder belongs to
 * one living process. The lock is a file "lock.<n>" with the owner's pid, start time and boot; the highest n counts. A new
 * owner links n+1 into place, which only one can, and the newest lock is never deleted, so there is no moment without one.
 * Limits: owners in different pid namespaces or on different machines are not told apart; give each proxy its own folder.
 * Errors: those of the file system as they are, and E_INTENT_UNAVAILABLE for a folder that somebody else holds.
 */
import { link, mkdir, open, readdir, readFile, rm, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { OperatingError } from "../core/errors.ts";

export interface JournalFile {
  /** Appends all of `bytes`, in order. */
  append(bytes: Uint8Array): Promise<void>;
  /** Everything appended so far is on the disk when it resolves. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface JournalFolder {
  /** Makes the folder if needed and takes the lock. @throws E_INTENT_UNAVAILABLE when a living process holds it. */
  claim(): Promise<void>;
  /** Names of the files, without locks. */
  list(): Promise<readonly string[]>;
  read(name: string): Promise<Uint8Array>;
  /** A new, empty file; one of that name must not exist. */
  create(name: string): Promise<JournalFile>;
  remove(name: string): Promise<void>;
  /** Lets others take the folder. */
  release(): Promise<void>;
}

interface Owner {
  readonly pid: number;
  /** Start of the process in clock ticks since boot, and the boot: a pid alone is used again. */
  readonly started: string;
  readonly boot: string;
}

const RELEASED: Owner = { pid: 0, started: "", boot: "" };
const LOCK_NAME = /^lock\.([0-9]+)$/;

async function startOf(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "latin1");
    // Field 22, counted after the command name, which may hold spaces and brackets itself.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

async function bootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "latin1").catch(() => "")).trim();
}

function parseOwner(text: string): Owner {
  try {
    const { pid, started, boot } = JSON.parse(text) as Partial<Owner>;
    return { pid: Number(pid), started: String(started), boot: String(boot) };
  } catch {
    return RELEASED;
  }
}

async function alive(owner: Owner): Promise<boolean> {
  return owner.pid > 0 && owner.boot === await bootId() && owner.started === await startOf(owner.pid);
}

class DiskFile implements JournalFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async append(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength;) {
      const { bytesWritten } = await this.#handle.write(bytes, at, bytes.byteLength - at);
      at += bytesWritten;
    }
  }

  sync(): Promise<void> {
    return this.#handle.datasync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

class DiskFolder implements JournalFolder {
  readonly #path: string;
  #lock: string | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async claim(): Promise<void> {
    await mkdir(this.#path, { recursive: true, mode: 0o700 });
    const names = await readdir(this.#path);
    const locks = names.flatMap((name) => LOCK_NAME.exec(name)?.[1] ?? []).map(Number).sort((left, right) => left - right);
    const newest = locks.at(-1);
    if (newest !== undefined) {
      const owner = parseOwner(await readFile(join(this.#path, `lock.${newest}`), "utf8"));
      if (await alive(owner)) throw held(this.#path, owner.pid);
    }
    const mine = `lock.${(newest ?? 0) + 1}`;
    await this.#linkLock(mine);
    this.#lock = mine;
    for (const old of locks) await rm(join(this.#path, `lock.${old}`), { force: true });
    await this.#syncFolder();
  }

  async #linkLock(name: string): Promise<void> {
    const claim = join(this.#path, `claim.${process.pid}`);
    const owner: Owner = { pid: process.pid, started: await startOf(process.pid) ?? "", boot: await bootId() };
    await writeFile(claim, JSON.stringify(owner));
    try {
      await link(claim, join(this.#path, name));
    } catch (error) {
      if (codeOf(error) === "EEXIST") throw held(this.#path, undefined);
      throw error;
    } finally {
      await rm(claim, { force: true });
    }
  }

  async list(): Promise<readonly string[]> {
    return (await readdir(this.#path)).filter((name) => !LOCK_NAME.test(name) && !name.startsWith("claim."));
  }

  read(name: string): Promise<Uint8Array> {
    return readFile(join(this.#path, name));
  }

  async create(name: string): Promise<JournalFile> {
    const handle = await open(join(this.#path, name), "ax", 0o600);
    try {
      await this.#syncFolder();
    } catch (error) {
      await handle.close();
      throw error;
    }
    return new DiskFile(handle);
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.#path, name), { force: true });
  }

  async release(): Promise<void> {
    if (this.#lock === undefined) return;
    // Kept, but nobody's: a folder without any lock would let two newcomers make different first ones.
    await writeFile(join(this.#path, this.#lock), JSON.stringify(RELEASED));
    this.#lock = undefined;
  }

  async #syncFolder(): Promise<void> {
    const folder = await open(this.#path, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

function held(path: string, pid: number | undefined): OperatingError {
  return new OperatingError("E_INTENT_UNAVAILABLE", "another process holds the journal's folder", { folder: path, pid });
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

/** A folder of the real disk. Nothing is touched before `claim`. */
export function diskFolder(path: string): JournalFolder {
  return new DiskFolder(path);
}

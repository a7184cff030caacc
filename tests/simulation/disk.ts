/**
 * The disk under a proxy's intent journal: it survives the process, forgets what was not synced when the process crashes, may
 * be full, and may be lost whole. Port: proxy/journal-file.ts.
 */
import type { JournalFile, JournalFolder } from "../../proxy/journal-file.ts";
import type { Fence } from "./fence.ts";

interface StoredFile {
  bytes: Buffer;
  syncedBytes: number;
}

/** One folder; each life of its process opens it anew. */
export class SimulatedDisk {
  readonly #files = new Map<string, StoredFile>();
  full = false;

  /** Power is lost: what was not synced is cut off, part of it may have reached the disk. */
  crash(keptShare: number): void {
    for (const file of this.#files.values()) {
      const unsynced = file.bytes.length - file.syncedBytes;
      file.bytes = file.bytes.subarray(0, file.syncedBytes + Math.floor(unsynced * keptShare));
      file.syncedBytes = file.bytes.length;
    }
  }

  /** The disk is replaced by an empty one. */
  lose(): void {
    this.#files.clear();
  }

  /** The folder as one life of the process sees it. */
  open(fence: Fence): JournalFolder {
    const files = this.#files;
    const mayFail = (): void => {
      if (this.full) throw Object.assign(new Error("ENOSPC: no space left on device (simulated)"), { code: "ENOSPC" });
    };
    const handle = (file: StoredFile): JournalFile => ({
      append: (bytes) => fence.pass("disk append", async () => {
        mayFail();
        file.bytes = Buffer.concat([file.bytes, bytes]);
      }),
      sync: () => fence.pass("disk sync", async () => {
        mayFail();
        file.syncedBytes = file.bytes.length;
      }),
      close: () => fence.pass("disk close", async () => undefined),
    });
    return {
      claim: () => fence.pass("disk claim", async () => undefined),
      release: () => fence.pass("disk release", async () => undefined),
      list: () => fence.pass("disk list", async () => [...files.keys()]),
      read: (name) => fence.pass("disk read", async () => files.get(name)?.bytes ?? Buffer.alloc(0)),
      remove: (name) => fence.pass("disk remove", async () => void files.delete(name)),
      create: (name) => fence.pass("disk create", async () => {
        mayFail();
        const file = { bytes: Buffer.alloc(0), syncedBytes: 0 };
        files.set(name, file);
        return handle(file);
      }),
    };
  }
}

/**
 * Files and folders of the lab: written whole or not at all, and never into a folder that somebody else prepared (the
 * lab's state lies under a folder that every user may write to).
 */
import { chownSync, existsSync, lstatSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { OperatingError } from "../core/errors.ts";
import type { SystemUser } from "./commands.ts";

/**
 * Makes `folder` with `mode` unless it is there.
 * @throws E_LAB_MACHINE when it is there but is a link, a file, or belongs to another user than `owner` (default: this one).
 */
export function ensureFolder(folder: string, mode: number, owner?: SystemUser): void {
  if (!existsSync(folder)) {
    mkdirSync(folder, { recursive: true, mode });
    if (owner !== undefined) chownSync(folder, owner.uid, owner.gid);
  }
  const found = lstatSync(folder);
  if (!found.isDirectory() || found.uid !== (owner?.uid ?? process.getuid?.())) {
    throw new OperatingError("E_LAB_MACHINE", `${folder} is no folder of this user: remove it, or give the lab another folder`);
  }
}

/** Writes `text` so that a reader sees the old file or the new one, never a part. Readable by the owner only. */
export function writeWhole(file: string, text: string): void {
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** The text of a file; undefined when there is none. */
export function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** One program at a time works on a lab: a file names it, and stops counting when that process is gone. */
import { rmSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { present } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import { readIfThere } from "./files.ts";
import { identityOf, isAlive } from "./proc.ts";

const holderShape = z.object({ pid: z.int(), startTicks: z.string(), boot: z.string() });
const TRIES_MAX = 3;

/**
 * Runs `work` while holding `file`.
 * @throws E_LAB_STEP when another living process holds it.
 */
export async function whileLocked<T>(file: string, work: () => Promise<T>): Promise<T> {
  take(file);
  try {
    return await work();
  } finally {
    rmSync(file, { force: true });
  }
}

function take(file: string): void {
  const self = JSON.stringify(present(identityOf(process.pid), "this process exists"));
  for (let tries = 1; ; tries += 1) {
    try {
      return writeFileSync(file, self, { flag: "wx", mode: 0o600 });
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
    const holder = holderShape.safeParse(parsed(readIfThere(file)));
    if (tries === TRIES_MAX || (holder.success && isAlive(holder.data))) {
      const who = holder.success ? `process ${holder.data.pid}` : "another program";
      throw new OperatingError("E_LAB_STEP", `${who} is at work on this lab: wait until it is done (${file})`);
    }
    rmSync(file, { force: true });
  }
}

/** Undefined for a file that is empty or half written. */
function parsed(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}

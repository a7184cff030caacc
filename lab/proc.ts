/**
 * Who a process is. A pid alone is not an identity: the kernel hands it out again, and after a reboot to anybody. Pid,
 * start time and boot together are one, so the lab never signals a process that it did not start.
 * Source: proc(5), /proc/[pid]/stat fields 3 (state), 4 (parent), 22 (start, in clock ticks since boot).
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { readIfThere } from "./files.ts";

export interface ProcessIdentity {
  readonly pid: number;
  readonly startTicks: string;
  readonly boot: string;
}

interface Stat {
  readonly state: string;
  readonly parent: number;
  readonly group: number;
  readonly startTicks: string;
}

const BOOT_FILE = "/proc/sys/kernel/random/boot_id";

function statOf(pid: number): Stat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The command name (field 2) is in parentheses and may hold spaces and parentheses itself.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state = "", parent = "", group = ""] = fields;
  return { state, parent: Number(parent), group: Number(group), startTicks: fields[19] ?? "" };
}

/** The identity of a process that exists; undefined when there is none, or only its remains. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  const stat = statOf(pid);
  if (stat === undefined || stat.state === "Z" || stat.state === "X") return undefined;
  return { pid, startTicks: stat.startTicks, boot: (readIfThere(BOOT_FILE) ?? "").trim() };
}

/** Is it stopped by a signal (SIGSTOP), until it is told to go on? */
export function isSuspended(identity: ProcessIdentity): boolean {
  return isAlive(identity) && statOf(identity.pid)?.state === "T";
}

/** Does this very process still run? */
export function isAlive(identity: ProcessIdentity): boolean {
  const now = identityOf(identity.pid);
  return now !== undefined && now.startTicks === identity.startTicks && now.boot === identity.boot;
}

function allPids(): readonly number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number);
}

/** The process, its process group and all their descendants: database servers put their children into groups of their own. */
export function familyOf(leader: number): readonly ProcessIdentity[] {
  const stats = new Map(allPids().flatMap((pid) => {
    const stat = statOf(pid);
    return stat === undefined ? [] : [[pid, stat] as const];
  }));
  const family = new Set([leader, ...[...stats].filter(([, stat]) => stat.group === leader).map(([pid]) => pid)]);
  for (let before = 0; before !== family.size;) {
    before = family.size;
    for (const [pid, stat] of stats) if (family.has(stat.parent)) family.add(pid);
  }
  return [...family].flatMap((pid) => identityOf(pid) ?? []);
}

/** Processes that work in `folder` or below: what a killed server left behind there. */
export function processesIn(folder: string): readonly number[] {
  return allPids().filter((pid) => {
    try {
      const place = readlinkSync(`/proc/${pid}/cwd`);
      return place === folder || place.startsWith(`${folder}/`);
    } catch {
      return false;
    }
  });
}

/** Resident memory of a process in bytes. */
export function residentBytes(pid: number): number {
  const pages = Number((readIfThere(`/proc/${pid}/statm`) ?? "0 0").split(" ")[1] ?? 0);
  return pages * 4096;
}

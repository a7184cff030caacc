/** On what and beside what a run took place: figures without this page cannot be compared with any others. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { arch, cpus, loadavg, release, totalmem } from "node:os";
import { readIfThere } from "../lab/files.ts";

const GIBIBYTE = 1024 ** 3;

export interface MachineFacts {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly system: string;
  readonly node: string;
  readonly nginx: string;
  readonly wrk: string;
  readonly postgres: string;
  readonly nats: string;
  readonly keystone: string;
}

function debianVersion(name: string): string {
  const { stdout } = spawnSync("dpkg-query", ["-W", "-f", "${Version}", name], { encoding: "utf8" });
  return stdout === "" ? "absent" : stdout;
}

/** Facts of this machine; versions are Debian's. */
export function machineFacts(): MachineFacts {
  const system = /^PRETTY_NAME="(.*)"$/m.exec(readIfThere("/etc/os-release") ?? "")?.[1] ?? "unknown";
  return { processor: cpus()[0]?.model ?? "unknown", cores: cpus().length, memoryGib: Math.round(totalmem() / GIBIBYTE),
    kernel: `${release()} ${arch()}`, system, node: process.version, nginx: debianVersion("nginx"), wrk: debianVersion("wrk"),
    postgres: debianVersion("postgresql-15"), nats: debianVersion("nats-server"), keystone: debianVersion("python3-keystone") };
}

/** Load of the last minute: above the number of cores, others take part in every figure. */
export function loadNow(): number {
  return loadavg()[0] ?? 0;
}

/** Processor time of the whole machine so far, in clock ticks: how much was worked, and how much could have been. */
export interface MachineTime {
  readonly busyTicks: number;
  readonly allTicks: number;
}

/** Source: proc(5), /proc/stat, first line: user nice system idle iowait irq softirq steal. */
export function machineTime(): MachineTime {
  const fields = (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "").trim().split(/\s+/).slice(1, 9).map(Number);
  const allTicks = fields.reduce((sum, ticks) => sum + ticks, 0);
  return { allTicks, busyTicks: allTicks - (fields[3] ?? 0) - (fields[4] ?? 0) };
}

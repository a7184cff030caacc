/** What one audit found and did, for a person. */
import type { ScanCounts } from "../capture/scan.ts";
import type { Manifest } from "../schemas/manifest.ts";

export interface AuditReport {
  readonly service: string;
  readonly atMs: number;
  readonly tookMs: number;
  /** Aggregates that the database has. */
  readonly aggregates: number;
  readonly differences: { readonly missing: number; readonly stale: number; readonly superfluous: number };
  readonly published: number;
  readonly held: number;
  /** Tombstones collected. */
  readonly collected: number;
  readonly epoch: number;
  readonly root: string;
}

export interface AuditFacts {
  readonly service: string;
  readonly atMs: number;
  readonly tookMs: number;
  readonly collected: number;
  readonly manifest: Manifest;
}

/** The report of an audit that found `counts`, kind by kind. */
export function reportOf({ manifest, ...facts }: AuditFacts, counts: readonly ScanCounts[]): AuditReport {
  const sum = (what: "aggregates" | "missing" | "stale" | "unsaid" | "superfluous" | "held"): number =>
    counts.reduce((total, each) => total + each[what], 0);
  const differences = { missing: sum("missing"), stale: sum("stale"), superfluous: sum("superfluous") };
  const held = sum("held");
  const found = differences.missing + differences.stale + differences.superfluous + sum("unsaid");
  return { ...facts, aggregates: sum("aggregates"), differences, held, published: found - held, epoch: manifest.epoch,
    root: manifest.root };
}

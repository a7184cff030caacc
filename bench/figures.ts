/**
 * From raw samples to the figures that are shown: percentiles, medians over rounds, ratios within one run. Pure.
 *
 * Absolute times drift on shared machines, so a comparison is always made between variants that took turns in the same round,
 * and the median over rounds is taken of what each round said.
 */
import { assert, present } from "../core/assert.ts";

/** The value below or at which `share` (0 to 1) of the samples lie: the nearest rank, so always a value that was seen. */
export function percentile(samples: readonly number[], share: number): number {
  assert(samples.length > 0 && share >= 0 && share <= 1, "a percentile needs samples and a share between 0 and 1");
  const ordered = [...samples].sort((left, right) => left - right);
  return present(ordered[Math.max(0, Math.ceil(share * ordered.length) - 1)], "a rank within the samples");
}

/** The middle value; of an even number the mean of the two in the middle. */
export function median(samples: readonly number[]): number {
  assert(samples.length > 0, "a median needs samples");
  const ordered = [...samples].sort((left, right) => left - right);
  const middle = Math.floor(ordered.length / 2);
  const upper = present(ordered[middle], "the middle");
  return ordered.length % 2 === 1 ? upper : (upper + present(ordered[middle - 1], "the lower middle")) / 2;
}

/** `items` starting at the one whose turn it is: every variant is first, second, … equally often over the rounds. */
export function turns<T>(items: readonly T[], round: number): readonly T[] {
  const first = round % items.length;
  return [...items.slice(first), ...items.slice(0, first)];
}

/** `value` with as many decimals as its size deserves; a dash for what was not measured. */
export function shown(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

/** What is measured of one variant: name of the figure (with its unit last) to its value. */
export type Figures = Readonly<Record<string, number>>;

/** Medians of every figure over rounds; a figure counts the rounds in which it was taken. */
export function mediansOf(rounds: readonly Figures[]): Figures {
  const names = [...new Set(rounds.flatMap((round) => Object.keys(round)))];
  return Object.fromEntries(names.map((name) => [name, median(rounds.flatMap((round) => round[name] ?? []))]));
}

/** One table of a report: variants in rows, figures in columns. */
export interface Table {
  readonly title: string;
  /** Names of the figures, in the order of the columns. */
  readonly columns: readonly string[];
  readonly rows: readonly { readonly variant: string; readonly figures: Figures }[];
}

/** The table in Markdown. */
export function markdownOf({ title, columns, rows }: Table): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [`### ${title}`, "", line(["", ...columns]), line(["---", ...columns.map(() => "---:")]),
    ...rows.map(({ variant, figures }) => line([variant, ...columns.map((column) => shown(figures[column]))]))].join("\n");
}

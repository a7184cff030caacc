/**
 * One line on a terminal that says how far an operation is, drawn over itself and wiped at the end.
 *
 * Invariants: nothing is written where the stream is no terminal, so that logs and pipes stay clean; at most one drawing per
 * DRAW_EVERY_MS; the line never wraps.
 */
import type { Clock } from "../core/clock.ts";
import type { Progress } from "../core/operation.ts";
import { printable } from "./tables.ts";

const DRAW_EVERY_MS = 100;
const BAR_COLUMNS = 24;
const COLUMNS_LEAST = 40;
const COLUMNS_DEFAULT = 80;
const WIPE = "\r\u001b[K";

/** What a progress line is drawn on; process.stderr is one. */
export interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** "[######------] 12/24 comparing user"; without a bar where nobody knows the total. */
export function progressText({ step, done, total }: Progress, columns: number): string {
  const share = total === undefined || total <= 0 ? undefined : Math.min(1, Math.max(0, done / total));
  const full = Math.round((share ?? 0) * BAR_COLUMNS);
  const bar = share === undefined ? `${done}` : `[${"#".repeat(full)}${"-".repeat(BAR_COLUMNS - full)}] ${done}/${total}`;
  return printable(`${bar} ${step}`).slice(0, Math.max(COLUMNS_LEAST, columns) - 1);
}

/** The line of one operation. */
export class ProgressLine {
  readonly #terminal: Terminal;
  readonly #clock: Clock;
  #drawnAtMs: number | undefined;

  constructor(terminal: Terminal, clock: Clock) {
    this.#terminal = terminal;
    this.#clock = clock;
  }

  /** Draws how far it is, unless it was drawn a moment ago. */
  show(progress: Progress): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#terminal.isTTY !== true || (this.#drawnAtMs !== undefined && nowMs - this.#drawnAtMs < DRAW_EVERY_MS)) return;
    this.#drawnAtMs = nowMs;
    this.#terminal.write(`${WIPE}${progressText(progress, this.#terminal.columns ?? COLUMNS_DEFAULT)}`);
  }

  /** Wipes the line, if there is one. */
  clear(): void {
    if (this.#drawnAtMs !== undefined) this.#terminal.write(WIPE);
    this.#drawnAtMs = undefined;
  }
}

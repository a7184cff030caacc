/**
 * What happened in a run, one line per event: virtual time, who, what. The hash over all lines says whether two runs were the
 * same; the newest lines are kept for whoever has to understand a failure.
 */
/** With HOLDFAST_TRACE everything is kept, the small steps too. */
const KEEPS_ALL = process.env["HOLDFAST_TRACE"] !== undefined;
const LINES_KEPT = KEEPS_ALL ? 1_000_000 : 60;
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

interface Line {
  readonly atMs: number;
  readonly actor: string;
  readonly text: string;
}

/** Actors get a column each, in this order; the rest share the last. */
const COLUMNS = ["service", "weather", "proxy", "auditor", "site"];
const COLUMN_CHARACTERS = 4;

function printed({ atMs, actor, text }: Line): string {
  const place = COLUMNS.findIndex((column) => actor.startsWith(column));
  const indent = " ".repeat((place === -1 ? COLUMNS.length : place) * COLUMN_CHARACTERS);
  return `${(atMs / 1_000).toFixed(3).padStart(9)}s ${indent}${actor}: ${text}`;
}

/** One run's events, oldest first. */
export class Trace {
  readonly #nowMs: () => number;
  readonly #lines: Line[] = [];
  #hash = FNV_OFFSET;
  #events = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Number of events so far. */
  get events(): number {
    return this.#events;
  }

  /** The same for two runs exactly when (but for chance) the same happened in both. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16);
  }

  /** `minor`: counts for the hash, and is not worth a line. */
  note(actor: string, text: string, minor = false): void {
    const atMs = this.#nowMs();
    this.#events += 1;
    this.#mix(atMs);
    for (const word of [actor, text]) for (let place = 0; place < word.length; place += 1) this.#mix(word.charCodeAt(place));
    if (minor && !KEEPS_ALL) return;
    this.#lines.push({ atMs, actor, text });
    if (this.#lines.length > 2 * LINES_KEPT) this.#lines.splice(0, LINES_KEPT);
  }

  /** The newest lines, for a person. */
  newest(): readonly string[] {
    return this.#lines.slice(-LINES_KEPT).map(printed);
  }

  #mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, FNV_PRIME);
  }
}

/**
 * Logs: tables that the service appends to and prunes by itself. New rows are found above the highest one seen, with an overlap
 * because identifiers are given out before transactions commit; rows that the service pruned are found when the lowest one has
 * risen, by comparing keys with the stream.
 */
import { present } from "../core/assert.ts";
import { keyOfRoot, type AggregateKey } from "../schemas/row.ts";
import type { Service } from "../schemas/define.ts";
import type { Rows } from "../rows/rows.ts";

/** Rows below the highest seen that are looked at again: more than are ever in open transactions at once. */
export const LOG_OVERLAP_ROWS = 64;
/** Rows taken in one look; a longer backlog is taken in several. */
export const LOG_PAGE_ROWS = 1000;

interface LogRooms {
  readonly service: Service;
  readonly rows: Rows;
  readonly publish: (keys: readonly AggregateKey[]) => Promise<void>;
  readonly isPublished: (key: AggregateKey) => boolean;
  readonly scanKeys: (kind: string) => Promise<void>;
}

/** Remembers how far each log was read; forgotten with the process, after which the first look compares keys. */
export class Logs {
  readonly #rooms: LogRooms;
  readonly #looks = new Map<string, { running: Promise<void>; next: Promise<void> | undefined }>();
  readonly #seen = new Map<string, { readonly least: number; readonly most: number }>();

  constructor(rooms: LogRooms) {
    this.#rooms = rooms;
  }

  /**
   * Publishes what is new in the log of `kind` since the last look, and what was pruned from it. Resolves after a look that began
   * later than this call; calls during a look share the next one.
   */
  look(kindName: string): Promise<void> {
    const slot = this.#looks.get(kindName);
    if (slot !== undefined) return (slot.next ??= slot.running.then(() => this.look(kindName), () => this.look(kindName)));
    const running = this.#lookNow(kindName).finally(() => this.#looks.delete(kindName));
    this.#looks.set(kindName, { running, next: undefined });
    return running;
  }

  async #lookNow(kindName: string): Promise<void> {
    const kind = present(this.#rooms.service.kinds.get(kindName), kindName);
    const table = present(this.#rooms.service.tables.get(kind.root), kind.root);
    const { rising } = present(kind.log, `${kindName} is a log`);
    const before = this.#seen.get(kindName);
    const found = await this.#rooms.rows.snapshot(async (read) => {
      const span = await read.span(table, rising);
      const fresh = before === undefined ? [] : await read.above(table, rising, before.most - LOG_OVERLAP_ROWS, LOG_PAGE_ROWS);
      return { span, fresh };
    });
    const span = found.span ?? { least: (before?.most ?? 0) + 1, most: before?.most ?? 0 };
    const lastTaken = found.fresh.length < LOG_PAGE_ROWS ? span.most : Number(present(found.fresh.at(-1), "a full page")[rising]);
    this.#seen.set(kindName, { least: span.least, most: lastTaken });
    if (before === undefined || span.least > before.least) await this.#rooms.scanKeys(kindName);
    await this.#rooms.publish(found.fresh.map((row) => keyOfRoot(kind, row)).filter((key) => !this.#rooms.isPublished(key)));
    if (lastTaken < span.most) await this.#lookNow(kindName);
  }
}

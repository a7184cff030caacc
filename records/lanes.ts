/**
 * Few at a time: calls of the API share a small part of the connections to a database whose first users are the rooms that keep
 * it in step. Waiting calls are bounded by the connections of the server.
 */

/** Runs at most `lanes` works at once, the others in order of arrival. */
export class Lanes {
  #free: number;
  readonly #queue: (() => void)[] = [];

  constructor(lanes: number) {
    this.#free = lanes;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  /** Runs `work` when a lane is free; its error is thrown on. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

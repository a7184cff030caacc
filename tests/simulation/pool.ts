/**
 * Spreads seeds over processes, one per core. What is reported is the first of the seeds in their order, so that it does not
 * depend on how many processes there are.
 */
import { fork, type ChildProcess } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import type { Answer, Job } from "./worker.ts";

/** A seed takes a fraction of a second; one that never ends has to be named, too. */
const SEED_MS_MAX = 180_000;
const WORKER = fileURLToPath(new URL("worker.ts", import.meta.url));

/** Processes that run seeds; close() them. */
export class SeedPool {
  readonly #all: readonly ChildProcess[];
  readonly #idle: ChildProcess[];
  readonly #waiting: ((worker: ChildProcess) => void)[] = [];

  constructor(processes = availableParallelism()) {
    this.#all = Array.from({ length: processes }, () => fork(WORKER, [], { execArgv: ["--import", "tsx"] }));
    this.#idle = [...this.#all];
  }

  /** Runs one job in the next process that is free. */
  async run(job: Job): Promise<Answer> {
    const worker = this.#idle.pop() ?? await new Promise<ChildProcess>((resolve) => this.#waiting.push(resolve));
    const answer = await answerOf(worker, job);
    const next = this.#waiting.shift();
    if (next === undefined) this.#idle.push(worker);
    else next(worker);
    return answer;
  }

  /** The first of `jobs`, in their order, with which something is wrong; how many were run. */
  async firstWrong<J extends Job>(jobs: readonly J[], done: (answer: Answer) => void = () => undefined):
  Promise<{ readonly job: J; readonly answer: Answer } | undefined> {
    let first: { readonly place: number; readonly answer: Answer } | undefined;
    let next = 0;
    const lane = async (): Promise<void> => {
      for (let place = next++; place < jobs.length && place < (first?.place ?? jobs.length); place = next++) {
        const job = jobs[place];
        if (job === undefined) return;
        const answer = await this.run(job);
        done(answer);
        if (answer.wrong.length > 0 && place < (first?.place ?? jobs.length)) first = { place, answer };
      }
    };
    await Promise.all(this.#all.map(lane));
    const job = first === undefined ? undefined : jobs[first.place];
    return first === undefined || job === undefined ? undefined : { job, answer: first.answer };
  }

  close(): void {
    for (const worker of this.#all) worker.kill();
  }
}

/** A worker that ends before it answers, or never answers, fails the job: the reason is on its standard error. */
function answerOf(worker: ChildProcess, job: Job): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const tooLong = setTimeout(() => worker.kill("SIGKILL"), SEED_MS_MAX);
    const ended = (code: number | null, signal: string | null): void => {
      clearTimeout(tooLong);
      reject(new Error(`the process of ${JSON.stringify(job)} ended with ${signal ?? code}`));
    };
    worker.once("exit", ended);
    worker.once("message", (answer) => {
      clearTimeout(tooLong);
      worker.off("exit", ended);
      resolve(answer as Answer);
    });
    worker.send(job);
  });
}

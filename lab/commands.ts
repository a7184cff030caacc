/**
 * Running a command to its end, with a time bound, its messages in a log, and files as input and output. No shell is
 * involved, so nothing is quoted. Children get a fixed environment: what the person at the terminal has exported (proxies,
 * OS_*, PG*, NODE_OPTIONS) must not change what the lab does.
 */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { systemClock, holdProcess } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import { COMMAND_MS, OUTPUT_MAX_BYTES } from "./options.ts";

/** A user of the system that a command or process runs as. */
export interface SystemUser {
  readonly uid: number;
  readonly gid: number;
}

export interface CommandOptions {
  /** File that receives the messages (standard error), appended. */
  readonly log: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly user?: SystemUser;
  readonly folder?: string;
  readonly timeoutMs?: number;
  /** Text, or the path of a file, for standard input. */
  readonly input?: { readonly text: string } | { readonly file: string };
  /** Path of a file for standard output; without it the output is returned. */
  readonly output?: string;
}

/** The environment of every child of the lab. */
export const CHILD_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin", HOME: "/root", LANG: "C.UTF-8", LC_ALL: "C.UTF-8",
};

/**
 * Runs `command` and gives what it wrote to standard output.
 * @throws E_LAB_STEP when it cannot start, fails, is too slow, or writes more than OUTPUT_MAX_BYTES.
 */
export async function run(command: readonly [string, ...string[]], options: CommandOptions): Promise<string> {
  const { log, input, output, timeoutMs = COMMAND_MS } = options;
  const [program, ...words] = command;
  const logFile = openSync(log, "a", 0o600);
  const inputFile = input !== undefined && "file" in input ? openSync(input.file, "r") : undefined;
  const outputFile = output === undefined ? undefined : openSync(output, "w", 0o600);
  const release = holdProcess();
  try {
    const child = spawn(program, words, {
      stdio: [inputFile ?? "pipe", outputFile ?? "pipe", logFile],
      env: { ...CHILD_ENVIRONMENT, ...options.environment },
      cwd: options.folder ?? "/",
      ...options.user,
    });
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    child.stdout?.on("data", (chunk: Buffer) => {
      sizeBytes += chunk.byteLength;
      if (sizeBytes > OUTPUT_MAX_BYTES) child.kill("SIGKILL");
      else chunks.push(chunk);
    });
    // A command that ends without reading its input breaks the pipe; its exit code says what there is to say.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input !== undefined && "text" in input ? input.text : undefined);
    const cancel = systemClock.after(timeoutMs, () => child.kill("SIGKILL"));
    const outcome = await new Promise<string | undefined>((resolve) => {
      child.once("error", (error) => resolve(error.message));
      child.once("close", (code, signal) => {
        if (code === 0) resolve(undefined);
        else resolve(signal === null ? `exit code ${code}` : `ended by ${signal}`);
      });
    });
    cancel();
    if (outcome !== undefined) throw new OperatingError("E_LAB_STEP", `${program} failed (${outcome})`, { log });
    return Buffer.concat(chunks).toString("utf8");
  } finally {
    release();
    for (const file of [logFile, inputFile, outputFile]) if (file !== undefined) closeSync(file);
  }
}

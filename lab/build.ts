/**
 * The build under dist/: made when a source changed since the lab last built, and named by a digest, so that processes of an
 * older build are started again.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { OperatingError } from "../core/errors.ts";
import { run } from "./commands.ts";
import { readIfThere } from "./files.ts";
import { INSTALL_MS } from "./options.ts";

const CHECKOUT = fileURLToPath(new URL("..", import.meta.url));
const STAMP = join(CHECKOUT, "dist", ".lab-build");
const COMPILER_SETTINGS = "tsconfig.build.json";
const settingsShape = z.object({ include: z.array(z.string()) });

/** Digest over names, sizes and times of everything that the build reads. */
function digestOfSources(): string {
  const hash = createHash("sha256");
  const add = (file: string): void => {
    const { size, mtimeMs } = statSync(join(CHECKOUT, file));
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  };
  const { include } = settingsShape.parse(JSON.parse(readIfThere(join(CHECKOUT, COMPILER_SETTINGS)) ?? "{}"));
  for (const folder of include.filter((name) => existsSync(join(CHECKOUT, name))).sort()) {
    for (const name of readdirSync(join(CHECKOUT, folder), { encoding: "utf8", recursive: true }).sort()) {
      if (name.endsWith(".ts")) add(join(folder, name));
    }
  }
  for (const file of ["package-lock.json", "tsconfig.json", COMPILER_SETTINGS]) add(file);
  return hash.digest("hex").slice(0, 16);
}

/**
 * Builds unless the last build was of the same sources; false when there was nothing to do.
 * @param log  receives the compiler's messages.
 * @throws E_LAB_STEP when the sources do not compile.
 */
export async function buildIfStale(log: string): Promise<boolean> {
  const digest = digestOfSources();
  if (readIfThere(STAMP) === digest) return false;
  rmSync(STAMP, { force: true });
  const compiler = join(CHECKOUT, "node_modules/typescript/bin/tsc");
  // The compiler writes its complaints to standard output.
  await run([process.execPath, compiler, "-p", COMPILER_SETTINGS], { log, folder: CHECKOUT, timeoutMs: INSTALL_MS, output: log })
    .catch((error: unknown) => {
      throw new OperatingError("E_LAB_STEP", "Holdfast's sources do not compile", { log }, error);
    });
  writeFileSync(STAMP, digest);
  return true;
}

/** Names the build that is there. @throws E_LAB_STEP when the lab has not built, or not to the end. */
export function builtEdition(): string {
  const digest = readIfThere(STAMP);
  if (digest === undefined) {
    throw new OperatingError("E_LAB_STEP", "Holdfast is not built: run `npm run up`, or build before the lab starts");
  }
  return digest;
}

/** PEM files, read once at start: certificate and key of a listening side, authorities of a server that is called. */
import { readFileSync } from "node:fs";

/** PEM texts from two paths. Throws the file system's own error: without them the process cannot do its work. */
export function readTlsFiles(paths: Readonly<Record<"cert" | "key", string>>): Readonly<Record<"cert" | "key", Buffer>> {
  return { cert: readFileSync(paths.cert), key: readFileSync(paths.key) };
}

/** PEM text of certificate authorities. Throws as readTlsFiles does; undefined without a path. */
export function readAuthorities(path: string | undefined): string | undefined {
  return path === undefined ? undefined : readFileSync(path, "utf8");
}

/** The certificate and key of a listening side, read once at start: what the proxy and the records API look up in files. */
import { readFileSync } from "node:fs";

/** PEM texts from two paths. Throws the file system's own error: without them the process cannot do its work. */
export function readTlsFiles(paths: Readonly<Record<"cert" | "key", string>>): Readonly<Record<"cert" | "key", Buffer>> {
  return { cert: readFileSync(paths.cert), key: readFileSync(paths.key) };
}

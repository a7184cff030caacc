/** The certificate and key of the listening side, read once at start: the proxy's only look at files besides its journal. */
import { readFileSync } from "node:fs";

/** PEM texts from two paths. Throws the file system's own error: without them the process cannot do its work. */
export function readTlsFiles(paths: Readonly<Record<"cert" | "key", string>>): Readonly<Record<"cert" | "key", Buffer>> {
  return { cert: readFileSync(paths.cert), key: readFileSync(paths.key) };
}

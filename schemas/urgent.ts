/**
 * Whether an image takes authority away: somebody may do less after it than before. Such images overtake everything else on
 * their way to a site (syncd/ahead.ts), and the publisher says so in a header, so that a reader need not open what it is looking
 * through. Pure; what is urgent stands in the service files.
 */
import { present } from "../core/assert.ts";
import type { Service } from "./define.ts";
import type { Image } from "./row.ts";

/** Does this image take authority away, as the service file declares? */
export function isUrgent(service: Service, { key, rows }: Image): boolean {
  const { urgent, root } = present(service.kinds.get(key.kind), key.kind);
  if (urgent === undefined || urgent === "always") return urgent === "always";
  if (rows === undefined) return urgent.gone;
  const { when } = urgent;
  if (when === undefined) return false;
  return (rows[root] ?? []).some((row) => when.values.includes(row[when.column] ?? null) === (when.not === undefined));
}

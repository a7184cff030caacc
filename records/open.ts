/**
 * From the records section of a configuration to the parts that a process runs: none when the section is absent. Shared by the
 * sync daemon of a site and by the centre's.
 */
import type { Part } from "../core/lifecycle.ts";
import type { World } from "../core/world.ts";
import { recordsServer, type RecordsOptions } from "./api.ts";
import type { ServedService } from "./writing.ts";

/** The API over these services, as parts of a lifecycle. @throws E_CONFIG for unsafe tokens */
export function openRecords(section: RecordsOptions | undefined, served: readonly ServedService[],
  world: World): readonly Part[] {
  return section === undefined ? [] : [recordsServer(section, served, world)];
}

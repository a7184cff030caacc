/**
 * The vocabulary for what a service keeps in files beside its database and every cloud must have alike: key repositories, and
 * settings of its configuration file. A service file declares them; no other room knows an option by name.
 * Not here: reading files and comparing (files/), who hands what to whom (audit/, syncd/).
 */
import { assert } from "../core/assert.ts";

/** An option of the service's own configuration file, with the value that the service takes when nobody sets it. */
export interface Setting {
  readonly section: string;
  readonly option: string;
  readonly byDefault: string;
}

/** A folder of numbered symmetric keys: 0 is staged, the highest signs or encrypts, every one is good for reading. */
export interface KeyRepository {
  readonly name: string;
  readonly folder: Setting;
  /** As many keys as the service's own tool keeps; a rotation leaves at least these. */
  readonly keysMax: Setting;
  /** Seconds that add up to the longest life of what a key has made. */
  readonly lives: readonly Setting[];
  /** Why the centre does not rotate it, and what an operator does instead; without it the centre may. */
  readonly rotatedOtherwise?: string;
}

/**
 * A setting that must be alike. `list` is compared as a set, `order` as a list whose order counts; `absent` is what an unset
 * option without a default is called.
 */
export interface SameSetting extends Setting {
  readonly as: "text" | "number" | "flag" | "list" | "order";
  /** What goes wrong when it differs. */
  readonly because: string;
}

/** How a setting is named to people: "[auth] methods". */
export function settingName({ section, option }: Pick<Setting, "section" | "option">): string {
  return `[${section}] ${option}`;
}

/** What a service file declares about files, where names must be said once. */
export function checkFiles({ keyRepositories = [], sameSettings = [] }: {
  readonly keyRepositories?: readonly KeyRepository[]; readonly sameSettings?: readonly SameSetting[] }): void {
  for (const names of [keyRepositories.map(({ name }) => name), sameSettings.map(settingName)]) {
    for (const [place, name] of names.entries()) assert(names.indexOf(name) === place, `${name} is said twice`);
  }
  for (const { name } of keyRepositories) assert(/^[a-z][a-z-]*$/.test(name), `${name} is no name of a key repository`);
}

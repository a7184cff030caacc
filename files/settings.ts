/**
 * Settings of a service's own configuration files (INI as oslo.config reads it), and how those of two clouds compare. Pure.
 *
 * Invariants: what cannot be read is an error with its line, never a default; equal means equal to the service: numbers as
 * numbers, truth in any spelling, lists without their blanks, in order only where the order counts.
 * Not covered: options set by environment variables, `$` references inside values, folders of configuration files.
 */
import { OperatingError } from "../core/errors.ts";
import { settingName, type SameSetting, type Setting } from "../schemas/settings.ts";

/** Options by section and name; of an option that is set twice the last one counts. */
export type Configuration = ReadonlyMap<string, string>;

const nameIn = (section: string, option: string): string => `${section}\n${option}`;

interface Reading {
  readonly options: Map<string, string>;
  section: string;
  option: string | undefined;
}

/**
 * Reads configuration files, later ones over earlier ones.
 * @throws E_SETTINGS_UNREADABLE with file and line
 */
export function configurationOf(files: readonly { readonly path: string; readonly text: string }[]): Configuration {
  const options = new Map<string, string>();
  for (const { path, text } of files) {
    const reading: Reading = { options, section: "DEFAULT", option: undefined };
    for (const [place, written] of text.split("\n").entries()) {
      const wrong = readLine(written.trimEnd(), reading);
      if (wrong === undefined) continue;
      throw new OperatingError("E_SETTINGS_UNREADABLE", `${path}: line ${place + 1}: ${wrong}`, { path });
    }
  }
  return options;
}

/** Takes one line; gives what is wrong with it. */
function readLine(line: string, reading: Reading): string | undefined {
  if (line === "") {
    reading.option = undefined;
    return undefined;
  }
  if (/^[ \t]/.test(line)) return readContinuation(line, reading);
  reading.option = undefined;
  if (line.startsWith("#") || line.startsWith(";")) return undefined;
  if (line.startsWith("[")) {
    if (!line.endsWith("]") || line.length <= 2) return "a section is [name]";
    reading.section = line.slice(1, -1);
    return undefined;
  }
  const end = line.search(/[=:]/);
  if (end <= 0) return "an option is name = value";
  const option = nameIn(reading.section, line.slice(0, end).trim());
  reading.options.set(option, unquoted(line.slice(end + 1).trim()));
  reading.option = option;
  return undefined;
}

function readContinuation(line: string, { options, option }: Reading): string | undefined {
  if (option === undefined) return "it continues nothing";
  options.set(option, `${options.get(option) ?? ""}\n${line.trimStart()}`);
  return undefined;
}

function unquoted(value: string): string {
  const first = value.at(0);
  return value.length >= 2 && first === value.at(-1) && (first === '"' || first === "'") ? value.slice(1, -1) : value;
}

/** The value of a setting: as written, or as the service takes it when nobody sets it. */
export function valueOf(configuration: Configuration, { section, option, byDefault }: Setting): string {
  return configuration.get(nameIn(section, option)) ?? byDefault;
}

/** A setting that is a number. @throws E_SETTINGS_UNREADABLE */
export function numberOf(configuration: Configuration, setting: Setting): number {
  const value = valueOf(configuration, setting).trim();
  if (/^\d{1,12}$/.test(value)) return Number(value);
  throw new OperatingError("E_SETTINGS_UNREADABLE", `${settingName(setting)} is "${value}" and should be a number`);
}

/** The settings that must be alike, by name. */
export function sameSettingsOf(configuration: Configuration, settings: readonly SameSetting[]): Readonly<Record<string, string>> {
  return Object.fromEntries(settings.map((setting) => [settingName(setting), valueOf(configuration, setting)]));
}

/** What the service makes of a value. */
function meaningOf(value: string, as: SameSetting["as"]): string {
  const trimmed = value.trim();
  switch (as) {
    case "text": return trimmed;
    case "number": return /^\d+$/.test(trimmed) ? String(Number(trimmed)) : trimmed;
    case "flag": return /^(?:true|yes|on|1)$/i.test(trimmed) ? "true" : /^(?:false|no|off|0)$/i.test(trimmed) ? "false" : trimmed;
    case "order": return entriesOf(trimmed).join(",");
    case "list": return [...new Set(entriesOf(trimmed))].sort().join(",");
  }
}

const entriesOf = (value: string): readonly string[] =>
  value.split(/[,\n]/).map((entry) => entry.trim()).filter((entry) => entry !== "");

/** One setting that differs, and what a person should do about it. */
export interface SettingDifference {
  readonly name: string;
  readonly message: string;
}

/**
 * What differs here from the centre, setting by setting. A setting that the centre does not speak of, because it runs another
 * release, is not compared.
 * @param files  for the operator: where the settings are here
 */
export function differencesOf(settings: readonly SameSetting[], here: Readonly<Record<string, string>>,
  centre: Readonly<Record<string, string>>, files: readonly string[]): readonly SettingDifference[] {
  return settings.flatMap((setting) => {
    const name = settingName(setting);
    const [ours, theirs] = [here[name] ?? setting.byDefault, centre[name]];
    if (theirs === undefined || meaningOf(ours, setting.as) === meaningOf(theirs, setting.as)) return [];
    const shown = (value: string): string => (value === "" ? "not set" : `"${value}"`);
    const change = theirs === "" ? "remove it" : `write ${setting.option} = ${theirs}`;
    const order = setting.as === "order" ? " (the order counts)" : "";
    return [{ name, message: `${name} is ${shown(ours)} here and ${shown(theirs)} at the centre${order}: ${setting.because}. `
      + `In ${files.join(" or ")} ${change}, under [${setting.section}], and start the service again` }];
  });
}

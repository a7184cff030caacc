/**
 * A service file as a page for people: what travels, how it groups, which calls change it, what stays behind and why.
 * Pure; docs/reference/<service>.md is this text, and a test compares the two.
 * Not here: column-by-column listings, which the table files already are.
 */
import { SITE_COUNTER_FIRST, type Kind, type Service, type Source, type Table, type Touch } from "./define.ts";
import { settingName } from "./settings.ts";

const code = (text: string): string => `\`${text}\``;
const row = (...cells: readonly string[]): string => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;

function tableOfRows(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [row(...head), row(...head.map(() => "---")), ...rows.map((cells) => row(...cells))].join("\n");
}

/** A source in words: "{user_id}", "answer $.user.id", "SHA-256 of …". */
function sourceText(source: Source): string {
  const plain = ((): string => {
    switch (source.from) {
      case "path":
        return `{${source.name}}`;
      case "answer":
      case "request":
        return `${source.from} ${source.path}`;
      case "form":
        return `answer form ${source.name}`;
      case "text":
        return JSON.stringify(source.value);
    }
  })();
  return "sha256" in source && source.sha256 === true ? `SHA-256 of ${plain}` : plain;
}

const conditions = (where: Readonly<Record<string, Source>>): string =>
  Object.entries(where).map(([column, source]) => `${column} = ${sourceText(source)}`).join(", ");

function touchText(touch: Touch): string {
  switch (touch.touch) {
    case "one":
      return `${touch.kind} (${conditions(touch.key)})`;
    case "every": {
      const table = touch.table === undefined || touch.table === touch.kind ? "" : `${touch.table}: `;
      return `every ${touch.kind} (${table}${conditions(touch.where)})`;
    }
    case "log":
      return `new rows of ${touch.kind}`;
    case "scan": {
      const only = touch.onlyIf === undefined ? "" : ` if there is a ${touch.onlyIf.table} (${conditions(touch.onlyIf.where)})`;
      return `all of ${touch.kind}${only}`;
    }
  }
}

/** Touches with the same condition in one phrase: "all of a, b, c if …". */
function touchesText(touches: readonly Touch[]): string {
  const scans = new Map<string, string[]>();
  const single: string[] = [];
  for (const touch of touches) {
    if (touch.touch !== "scan") {
      single.push(touchText(touch));
      continue;
    }
    const only = touchText(touch).slice(`all of ${touch.kind}`.length);
    scans.set(only, [...(scans.get(only) ?? []), touch.kind]);
  }
  return [...single, ...[...scans].map(([only, kinds]) => `all of ${kinds.join(", ")}${only}`)].join("; ");
}

function kindRow(kind: Kind): readonly string[] {
  return [String(kind.rank), code(kind.name), kind.key.map(code).join(", "), kind.tables.map(code).join(", "),
    [...kind.except.map((except) => `not ${Object.values(except.key).map(code).join(", ")}: ${except.because}`),
      ...(kind.log === undefined ? [] : [`log, rising by ${code(kind.log.rising)}`])].join("; ")];
}

function tableRow(table: Table): readonly string[] {
  const references = table.references.map((reference) => {
    const when = Object.entries(reference.when ?? {})
      .map(([column, values]) => ` if ${column} is ${values.map(String).join(" or ")}`).join("");
    return `${reference.hard ? "" : "soft: "}${reference.columns.join(", ")} → ${reference.table}${when}`;
  });
  const local = Object.entries(table.local).map(([column, value]) => `${code(column)} (new: ${String(value)})`);
  return [code(table.name), table.key.map(code).join(", "), table.unique.map((columns) => `(${columns.join(", ")})`).join(" "),
    references.join("; "), local.join(", "), table.secret.map(code).join(", ")];
}

/** The reference page of a service: Markdown, ends with a newline. */
export function describeService(service: Service): string {
  const failing = (statuses: readonly number[] | undefined): string => (statuses ?? []).join(", ");
  const tables = [...service.tables.values()];
  const counted = tables.flatMap((table) => table.counted === undefined ? [] : [code(`${table.name}.${table.counted}`)]);
  return [
    `# ${service.name}: what is synchronised`,
    "This page is generated from the service file; edit that instead.",
    `Verified for schema revisions ${service.migrations.verified.map(code).join(" and ")} (${code(service.migrations.table)}).`,
    "## Aggregates, parents first",
    tableOfRows(["Rank", "Kind", "Named by", "Tables", "Remarks"], [...service.kinds.values()].map(kindRow)),
    "## Tables",
    "References are foreign keys of the database unless marked soft. Local columns are each site's own. Counted keys are " +
      `copied as they are, and sites count their own from ${SITE_COUNTER_FIRST}: ${counted.join(", ")}.`,
    tableOfRows(["Table", "Key", "Unique", "References", "Local columns", "Secret columns"], tables.map(tableRow)),
    "## Tables that stay",
    tableOfRows(["Table", "Because"], Object.entries(service.local).map(([table, because]) => [code(table), because])),
    "## Calls that change rows",
    "Everything named is read again after the call. \"every\" is asked before and after it.",
    tableOfRows(["Call", "May change", "Also after a refusal with"],
      service.captures.map((capture) => [code(capture.on), touchesText(capture.touches), failing(capture.writesOnFailure)])),
    "## Mutating routes that change nothing",
    tableOfRows(["Call", "Because"], service.leaves.map((leave) => [code(leave.on), leave.because])),
    "## Cache regions",
    tableOfRows(["Region", "memcached key"], Object.entries(service.cacheRegions ?? {}).map(([name, key]) => [name, code(key)])),
    "## Key repositories",
    "Folders of keys that the centre's daemon seals for each site, by the settings that name them.",
    tableOfRows(["Repository", "Folder, unless set", "Keys left at least", "Rotated by Holdfast"],
      (service.keyRepositories ?? []).map(({ name, folder, keysMax, rotatedOtherwise }) => [code(name),
        `${code(settingName(folder))}, ${code(folder.byDefault)}`, `${code(settingName(keysMax))}, ${keysMax.byDefault}`,
        rotatedOtherwise === undefined ? "yes" : `no: ${rotatedOtherwise}`])),
    "## Settings that must be alike",
    tableOfRows(["Setting", "Unless set", "Compared as", "Because, when it differs,"],
      (service.sameSettings ?? []).map((each) => [code(settingName(each)), each.byDefault === "" ? "" : code(each.byDefault),
        each.as, each.because])),
  ].join("\n\n") + "\n";
}

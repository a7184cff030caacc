/** Text for a terminal: columns that line up, and nothing from elsewhere that could steer the terminal. */

/** `text` without control characters: what strangers wrote must not steer the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, "?");
}

/** Lines with columns as wide as their widest cell; the first row is the heading. */
export function tableOf(rows: readonly (readonly string[])[]): readonly string[] {
  const lines = rows.map((row) => row.map(printable));
  const columns = Math.max(0, ...lines.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) => Math.max(...lines.map((row) => row[column]?.length ?? 0)));
  return lines.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd());
}

/** "1 difference", "2 differences". */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

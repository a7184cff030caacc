/**
 * What a batch of changes asks the site's database about the rows it refers to. Pure. Which rows those are:
 * schemas/references.ts.
 */
import { present } from "../core/assert.ts";
import type { Service, Table } from "../schemas/define.ts";
import type { Need } from "../schemas/references.ts";
import type { Value } from "../schemas/row.ts";

export { markOf, marksOf, needsOf, type Need } from "../schemas/references.ts";

/** The needs grouped into one question per (table, columns), for the database. */
export function questionsOf(service: Service, needs: readonly Need[]): readonly { readonly table: Table;
  readonly columns: readonly string[]; readonly values: readonly (readonly Value[])[] }[] {
  const grouped = new Map<string, { table: Table; columns: readonly string[]; values: (readonly Value[])[] }>();
  for (const need of new Map(needs.map((each) => [each.mark, each])).values()) {
    const name = `${need.table}(${need.columns.join(",")})`;
    const group = grouped.get(name) ?? { table: present(service.tables.get(need.table), need.table), columns: need.columns,
      values: [] };
    group.values.push(need.values);
    grouped.set(name, group);
  }
  return [...grouped.values()];
}

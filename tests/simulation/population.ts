/** What the centre's database holds before the product is there: a few of everything, and more than a tight guard lets go. */
import { present } from "../../core/assert.ts";
import type { Random } from "../../core/random.ts";
import type { Rows } from "../../rows/rows.ts";
import { toy } from "../support/toy-service.ts";
import { SECRET_MARK } from "./service.ts";

const table = (name: string) => present(toy.tables.get(name), name);

/** Makes `users` users, with what belongs to them. */
export async function populate(rows: Rows, users: number, random: Random): Promise<void> {
  const id = (): string => random.id().replaceAll("-", "").slice(0, 12);
  await rows.transaction(async (write) => {
    const domains = [id(), id()];
    const group = id();
    await write.insert(table("domain"), domains.map((domain) => ({ id: domain, name: `domain ${domain}` })));
    await write.insert(table("group"), [{ id: group, name: `group ${group}` }]);
    for (let user = 0; user < users; user += 1) {
      const made = id();
      await write.insert(table("user"), [{ id: made, domain_id: domains[user % domains.length] ?? "", name: `user ${made}` }]);
      await write.insert(table("secret"), [{ user_id: made, hash: `${SECRET_MARK} of ${made}` }]);
      if (random.next() < 0.4) await write.insert(table("membership"), [{ user_id: made, group_id: group }]);
      if (random.next() < 0.4) await write.insert(table("grant"), [{ actor_id: made, target_id: "x" }]);
    }
  });
}

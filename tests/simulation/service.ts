/**
 * The simulated OpenStack service: random calls on the toy service that write the centre's database the way real ones do,
 * cascades, renames and pruned logs included. Knows nothing of Holdfast but the captures it hands over.
 */
import { present } from "../../core/assert.ts";
import { wireDatetime, type Clock } from "../../core/clock.ts";
import type { Random } from "../../core/random.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import type { Capture, Table } from "../../schemas/define.ts";
import type { Row, Value } from "../../schemas/row.ts";
import { toy } from "../support/toy-service.ts";

const table = (name: string): Table => present(toy.tables.get(name), name);
const capture = (on: string) => present(toy.captures.find((each) => each.on === on), on);
const NAMES = ["ann", "bob", "cat", "dan", "eve", "fay", "gil", "hal"];
const EVENTS_KEPT = 5;
/** In every secret value, so that one can be found where none may be. */
export const SECRET_MARK = "s3cr3t";

/** What the service writes, and the body of its answer. */
export type Write = () => Promise<string>;

export interface ServiceRooms {
  /** The service's own connection to the centre's database. */
  readonly rows: Rows;
  readonly clock: Clock;
  /** Sends a client's call on its way; resolves when the client has its answer, or none. */
  readonly send: (declared: Capture, parameters: Readonly<Record<string, string>>, write: Write) => Promise<void>;
}

/** One client's wish, decided by `random`: one call, or a few after each other. */
export class SimulatedCall {
  readonly #rooms: ServiceRooms;
  readonly #random: Random;

  constructor(rooms: ServiceRooms, random: Random) {
    this.#rooms = rooms;
    this.#random = random;
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.#random.next() * from.length)];
  }

  #fresh(): string {
    return this.#random.id().replaceAll("-", "").slice(0, 12);
  }

  async #all(name: string): Promise<Row[]> {
    return this.#rooms.rows.snapshot((read) => read.page(table(name), { limit: 10_000 }));
  }

  async #write(work: (write: RowWriter) => Promise<void>): Promise<void> {
    await this.#rooms.rows.transaction(work);
  }

  /** Makes it. */
  async make(): Promise<void> {
    const calls = [this.#makeUser, this.#makeUser, this.#renameUser, this.#renameUser, this.#swapUsers, this.#changeSecret,
      this.#removeUser, this.#remakeUser, this.#makeGroup, this.#removeGroup, this.#join, this.#join, this.#leave, this.#grant,
      this.#revoke, this.#makeDomain, this.#removeDomain];
    await present(this.#pick(calls), "there are calls").call(this);
  }

  async #event(write: RowWriter, user: Value): Promise<void> {
    await write.insert(table("event"), [{ user_id: user, at: wireDatetime(this.#rooms.clock.nowMs()) }]);
    const rows = await write.page(table("event"), { limit: 10_000 });
    const old = [...rows].sort((left, right) => Number(left["id"]) - Number(right["id"])).slice(0, -EVENTS_KEPT);
    await write.remove(table("event"), old);
  }

  async #makeDomain(): Promise<void> {
    const id = this.#fresh();
    await this.#rooms.send(capture("POST /domains"), {}, async () => {
      await this.#write((write) => write.insert(table("domain"), [{ id, name: `domain ${id}` }]));
      return JSON.stringify({ domain: { id } });
    });
  }

  async #makeUserNamed(domain: Value, name: Value): Promise<void> {
    const taken = (await this.#all("user")).some((user) => user["domain_id"] === domain && user["name"] === name);
    if (taken) return;
    const id = this.#fresh();
    await this.#rooms.send(capture("POST /users"), {}, async () => {
      await this.#write(async (write) => {
        await write.insert(table("user"), [{ id, domain_id: domain, name }]);
        await write.insert(table("secret"), [{ user_id: id, hash: `${SECRET_MARK} of ${id}` }]);
      });
      return JSON.stringify({ user: { id } });
    });
  }

  async #makeUser(): Promise<void> {
    const domain = this.#pick(await this.#all("domain"));
    if (domain === undefined) return this.#makeDomain();
    await this.#makeUserNamed(domain["id"] ?? null, this.#pick(NAMES) ?? "ann");
  }

  async #remakeUser(): Promise<void> {
    const user = this.#pick(await this.#all("user"));
    if (user === undefined) return;
    await this.#remove(user);
    await this.#makeUserNamed(user["domain_id"] ?? null, user["name"] ?? null);
  }

  async #rename(user: Row, name: string): Promise<void> {
    await this.#rooms.send(capture("PATCH /users/{user}"), { user: String(user["id"]) }, async () => {
      await this.#write((write) => write.update(table("user"), [{ ...user, name }], ["name"]));
      return "{}";
    });
  }

  async #renameUser(): Promise<void> {
    const users = await this.#all("user");
    const user = this.#pick(users);
    const name = this.#pick(NAMES) ?? "ann";
    if (user === undefined || users.some((each) => each["domain_id"] === user["domain_id"] && each["name"] === name)) return;
    await this.#rename(user, name);
  }

  async #swapUsers(): Promise<void> {
    const users = await this.#all("user");
    const first = this.#pick(users);
    const second = users.find((each) => each["domain_id"] === first?.["domain_id"] && each["id"] !== first?.["id"]);
    if (first === undefined || second === undefined) return;
    await this.#rename(first, `between ${String(first["id"])}`);
    await this.#rename(second, String(first["name"]));
    await this.#rename(first, String(second["name"]));
  }

  async #changeSecret(): Promise<void> {
    const user = this.#pick(await this.#all("user"));
    if (user === undefined) return;
    await this.#rooms.send(capture("PATCH /users/{user}"), { user: String(user["id"]) }, async () => {
      await this.#write(async (write) => {
        const old = await write.select(table("secret"), { columns: ["user_id"], values: [[user["id"] ?? null]] });
        await write.remove(table("secret"), old.slice(0, -1));
        await write.insert(table("secret"), [{ user_id: user["id"] ?? null, hash: `${SECRET_MARK} ${this.#fresh()}` }]);
        await this.#event(write, user["id"] ?? null);
      });
      return "{}";
    });
  }

  async #dropUser(write: RowWriter, id: Value): Promise<void> {
    for (const [name, column] of [["membership", "user_id"], ["grant", "actor_id"]] as const) {
      await write.remove(table(name), await write.select(table(name), { columns: [column], values: [[id]] }));
    }
    await write.remove(table("user"), [{ id }]);
    await this.#event(write, id);
  }

  async #remove(user: Row): Promise<void> {
    await this.#rooms.send(capture("DELETE /users/{user}"), { user: String(user["id"]) }, async () => {
      await this.#write((write) => this.#dropUser(write, user["id"] ?? null));
      return "";
    });
  }

  async #removeUser(): Promise<void> {
    const user = this.#pick(await this.#all("user"));
    if (user !== undefined) await this.#remove(user);
  }

  async #removeDomain(): Promise<void> {
    const domain = this.#pick(await this.#all("domain"));
    if (domain === undefined || this.#random.next() < 0.7) return;
    await this.#rooms.send(capture("DELETE /domains/{domain}"), { domain: String(domain["id"]) }, async () => {
      await this.#write(async (write) => {
        const users = await write.select(table("user"), { columns: ["domain_id"], values: [[domain["id"] ?? null]] });
        for (const user of users) await this.#dropUser(write, user["id"] ?? null);
        await write.remove(table("domain"), [domain]);
      });
      return "";
    });
  }

  async #makeGroup(): Promise<void> {
    const id = this.#fresh();
    await this.#rooms.send(capture("POST /groups"), {}, async () => {
      await this.#write((write) => write.insert(table("group"), [{ id, name: `group ${id}` }]));
      return JSON.stringify({ group: { id } });
    });
  }

  async #removeGroup(): Promise<void> {
    const group = this.#pick(await this.#all("group"));
    if (group === undefined) return;
    await this.#rooms.send(capture("DELETE /groups/{group}"), { group: String(group["id"]) }, async () => {
      await this.#write(async (write) => {
        await write.remove(table("membership"),
          await write.select(table("membership"), { columns: ["group_id"], values: [[group["id"] ?? null]] }));
        await write.remove(table("group"), [group]);
      });
      return "";
    });
  }

  async #join(): Promise<void> {
    const [user, group] = [this.#pick(await this.#all("user")), this.#pick(await this.#all("group"))];
    if (user === undefined) return;
    if (group === undefined) return this.#makeGroup();
    const row = { user_id: user["id"] ?? null, group_id: group["id"] ?? null };
    await this.#rooms.send(capture("PUT /groups/{group}/users/{user}"), { group: String(row.group_id),
      user: String(row.user_id) }, async () => {
      await this.#write(async (write) => {
        const there = await write.select(table("membership"), { columns: ["user_id", "group_id"],
          values: [[row.user_id, row.group_id]] });
        if (there.length === 0) await write.insert(table("membership"), [row]);
      });
      return "";
    });
  }

  async #leave(): Promise<void> {
    const row = this.#pick(await this.#all("membership"));
    if (row === undefined) return;
    await this.#rooms.send(capture("DELETE /groups/{group}/users/{user}"), { group: String(row["group_id"]),
      user: String(row["user_id"]) }, async () => {
      await this.#write(async (write) => {
        await write.remove(table("membership"), [row]);
        await this.#event(write, row["user_id"] ?? null);
      });
      return "";
    });
  }

  async #grant(): Promise<void> {
    const user = this.#pick(await this.#all("user"));
    if (user === undefined) return;
    const row = { actor_id: user["id"] ?? null, target_id: this.#pick(["x", "y", "Z/.*>"]) ?? "x" };
    await this.#rooms.send(capture("PUT /grants/{user}/{target}"), { user: String(row.actor_id), target: row.target_id },
      async () => {
      await this.#write(async (write) => {
        const there = await write.select(table("grant"), { columns: ["actor_id", "target_id"],
          values: [[row.actor_id, row.target_id]] });
        if (there.length === 0) await write.insert(table("grant"), [row]);
      });
      return "";
    });
  }

  async #revoke(): Promise<void> {
    const row = this.#pick(await this.#all("grant"));
    if (row === undefined) return;
    await this.#rooms.send(capture("DELETE /grants/{user}/{target}"), { user: String(row["actor_id"]),
      target: String(row["target_id"]) }, async () => {
      await this.#write((write) => write.remove(table("grant"), [row]));
      return "";
    });
  }
}

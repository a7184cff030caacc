/**
 * Goal: whoever holds a token can read and write records as far as its scopes go, and every write is an ordinary change: it has a
 * version, it is on the stream, and it never overwrites what its caller has not seen. Method: HTTPS with a certificate of its
 * own, the toy service on memory twins behind a real capture room.
 */
import assert from "node:assert/strict";
import { present } from "../../core/assert.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Rows } from "../../rows/rows.ts";
import type { Row } from "../../schemas/row.ts";
import { CentreStage, TOKENS } from "../support/records-stage.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";

const BASE = "/v1/toy";
const ADA = { id: "ada", domain_id: "d", name: "Ada" };
const HASH = "hash-that-nobody-may-see";

/** What an answer holds, for tests: JSON. */
type Body = Record<string, unknown> & { readonly error: { readonly code: string; readonly message: string };
  readonly rows: Record<string, Row[]>; readonly row: Row;
  readonly records: { readonly key: unknown[]; readonly digest: string }[] };

describe("the database sync API at a centre", () => {
  let rows: Rows;
  let stage: CentreStage;

  const insert = (name: string, inserted: readonly Row[]): Promise<void> =>
    rows.transaction((write) => write.insert(present(toy.tables.get(name), name), inserted));
  const stored = (name: string, id: string | number): Promise<readonly Row[]> => rows.snapshot((read) =>
    read.select(present(toy.tables.get(name), name), { columns: ["id"], values: [[id]] }));
  const get = async (path: string, token: keyof typeof TOKENS = "reader",
    status = 200): Promise<{ body: Body; etag: string }> => {
    const answer = await stage.listener.call("get", BASE + path, token);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    return { body: answer.body as Body, etag: String(answer.headers["etag"]) };
  };
  const put = async (path: string, body: object, status: number, headers: Record<string, string> = {},
    token: keyof typeof TOKENS = "admin"): Promise<Body> => {
    const answer = await stage.listener.call("put", BASE + path, token).set(headers).send(body);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    return answer.body as Body;
  };
  const remove = async (path: string, status: number, headers: Record<string, string> = {},
    token: keyof typeof TOKENS = "admin"): Promise<Body> => {
    const answer = await stage.listener.call("delete", BASE + path, token).set(headers);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    return answer.body as Body;
  };
  const last = (name: string): { readonly sequence: number; readonly headers: Readonly<Record<string, string>> } =>
    present(stage.stream.last(`os.v1.toy.all.${name}`), `a message of ${name}`);

  beforeEach(async () => {
    rows = memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION] });
    await insert("domain", [{ id: "d", name: "D" }]);
    await insert("user", [{ ...ADA, seen_at: "2026-01-02T03:04:05.000000" }, { id: "bob", domain_id: "d", name: "Bob" }]);
    await insert("secret", [{ id: 1, user_id: "ada", hash: HASH }]);
    stage = new CentreStage(toy, rows);
    await stage.start();
    await stage.capture.publish([{ kind: "user", values: ["ada"] }]);
  });
  afterEach(() => stage.stop());

  describe("reading", () => {
    it("shows an aggregate whole, with digest and version, and hides what is secret", async () => {
      const { body, etag } = await get("/aggregates/user/ada");
      assert.deepEqual(body.rows, { user: [ADA], secret: [{ id: 1, user_id: "ada" }] });
      assert.deepEqual(body["hidden"], ["secret.hash"]);
      const message = last("user.ada");
      assert.deepEqual([body["digest"], body["published"]], [message.headers["Hf-Digest"], message.headers["Hf-Digest"]]);
      assert.equal(body["version"], `1.${message.sequence}`);
      assert.equal(etag, `"${String(body["digest"])}"`);
      const { body: whole } = await get("/aggregates/user/ada", "auditor");
      assert.deepEqual([whole.rows["secret"], whole["hidden"], whole["digest"]],
        [[{ id: 1, user_id: "ada", hash: HASH }], [], body["digest"]]);
    });

    it("shows a record with its local columns apart and the aggregate it belongs to", async () => {
      const { body } = await get("/tables/user/records/ada");
      assert.deepEqual([body.row, body["local"]], [ADA, { seen_at: "2026-01-02T03:04:05.000000" }]);
      const { body: owned } = await get("/tables/secret/records/1");
      assert.deepEqual(owned.row, { id: 1, user_id: "ada" });
      assert.deepEqual((owned["aggregate"] as Body)["name"], "user.ada");
    });

    it("says 404 for everything that is not there, and for other spellings of what is", async () => {
      for (const path of ["/tables/nothing/records", "/tables/user/records/eve", "/aggregates/nothing", "/aggregates/user/eve",
        "/aggregates/user/ada/more", "/tables/secret/records/01", "/tables/secret/records/one", "/elsewhere", "/tables/user"]) {
        const { body } = await get(path, "reader", 404);
        assert.equal(body.error.code, "E_RECORD_UNKNOWN", path);
      }
      const answer = await stage.listener.call("get", "/v1/nothing/tables", "reader");
      assert.equal(answer.status, 404);
    });

    it("reads keys that are no plain text, and refuses paths that mean nothing", async () => {
      const odd = "/ =%\u{1f600}\u0001";
      await insert("group", [{ id: odd, name: "odd" }, { id: "", name: "empty" }]);
      const token = `=${Buffer.from(odd, "utf8").toString("base64url")}`;
      for (const segment of [encodeURIComponent(odd), token]) {
        assert.deepEqual((await get(`/tables/group/records/${segment}`)).body.row, { id: odd, name: "odd" });
      }
      assert.deepEqual((await get("/aggregates/group/=")).body.rows, { group: [{ id: "", name: "empty" }] });
      for (const segment of ["%zz", "=%25", "=a"]) {
        assert.equal((await get(`/tables/group/records/${segment}`, "reader", 400)).body.error.code, "E_REQUEST_MALFORMED");
      }
    });

    it("pages through a table, each record once, and says where to go on", async () => {
      await insert("group", Array.from({ length: 25 },
        (_, place) => ({ id: `g${String(place).padStart(2, "0")}`, name: `n${place}` })));
      const seen: unknown[] = [];
      let pages = 0;
      for (let next: unknown = ""; next !== null; pages += 1) {
        const { body } = await get(`/tables/group/records?limit=10${next === "" ? "" : `&after=${String(next)}`}`);
        seen.push(...body.records.map(({ key }) => key[0]));
        next = body["next"];
      }
      assert.deepEqual([seen.length, new Set(seen).size, pages], [25, 25, 3]);
      const { body } = await get("/aggregates/user?limit=1");
      assert.deepEqual((body["aggregates"] as Body[]).map((each) => each["name"]), ["user.ada"]);
      assert.ok(body["next"]);
    });

    it("names every mistake of a query", async () => {
      const { body } = await get("/tables/group/records?limit=0&after=nonsense&colour=red", "reader", 400);
      assert.equal(body.error.code, "E_OPERATION_INPUT");
      assert.match(body.error.message, /"colour"[^]*limit[^]*after/);
    });

    it("gives the same digest for the same record, and another for another", async () => {
      const digestOf = async (path: string): Promise<unknown> => (await get(path)).body["digest"];
      const before = await digestOf("/tables/user/records/ada");
      assert.equal(await digestOf("/tables/user/records/ada"), before);
      await rows.transaction((write) => write.update(present(toy.tables.get("user"), "user"), [{ ...ADA, name: "Eda" }],
        ["name"]));
      assert.notEqual(await digestOf("/tables/user/records/ada"), before);
    });
  });

  describe("writing", () => {
    const image = (name: string): object => ({ rows: { user: [{ ...ADA, name }],
      secret: [{ id: 1, user_id: "ada", hash: "new" }] } });

    it("sets an aggregate that its caller has read, publishes it, and answers with the version", async () => {
      const { etag, body: before } = await get("/aggregates/user/ada");
      const body = await put("/aggregates/user/ada", image("Countess"), 200, { "If-Match": etag });
      const message = last("user.ada");
      assert.deepEqual([body["outcome"], body["version"], body["published"]],
        ["written", `1.${message.sequence}`, message.headers["Hf-Digest"]]);
      assert.deepEqual(await stored("user", "ada"), [{ ...ADA, name: "Countess", seen_at: "2026-01-02T03:04:05.000000" }]);
      assert.equal((await get("/aggregates/user/ada")).body["digest"], message.headers["Hf-Digest"]);
      const again = await put("/aggregates/user/ada", image("Second"), 412, { "If-Match": etag });
      assert.equal(again.error.code, "E_RECORD_CONFLICT");
      await put("/aggregates/user/ada", image("Second"), 412, { "If-Match": String(before["version"]) });
      await put("/aggregates/user/ada", image("Second"), 200, { "If-Match": `"1.${message.sequence}"` });
    });

    it("does not overwrite what nobody named, nor make what is there", async () => {
      assert.equal((await put("/aggregates/user/ada", image("x"), 428)).error.code, "E_RECORD_CONFLICT");
      await put("/aggregates/user/ada", image("x"), 412, { "If-None-Match": "*" });
      await put("/aggregates/user/eve", { rows: { user: [{ ...ADA, id: "eve", name: "Eve" }], secret: [] } }, 412,
        { "If-Match": "*" });
      await remove("/aggregates/user/ada", 428);
      await remove("/aggregates/user/eve", 404, { "If-Match": "*" });
      assert.deepEqual((await stored("user", "ada")).map((row) => row["name"]), ["Ada"]);
    });

    it("refuses a version that is no longer what the rows are", async () => {
      const version = String((await get("/aggregates/user/ada")).body["version"]);
      await rows.transaction((write) => write.update(present(toy.tables.get("user"), "user"), [{ ...ADA, name: "Eda" }],
        ["name"]));
      await put("/aggregates/user/ada", image("x"), 412, { "If-Match": version });
    });

    it("makes and removes aggregates", async () => {
      const eve = { rows: { user: [{ ...ADA, id: "eve", name: "Eve" }], secret: [{ id: 7, user_id: "eve", hash: "e" }] } };
      assert.equal((await put("/aggregates/user/eve", eve, 201))["outcome"], "written");
      assert.deepEqual((await stored("secret", 7)).map((row) => row["hash"]), ["e"]);
      // The counter was raised: what the service makes next does not collide.
      await insert("secret", [{ user_id: "eve", hash: "next" }]);
      assert.deepEqual((await stored("secret", 8)).map((row) => row["hash"]), ["next"]);
      const { etag } = await get("/aggregates/user/eve");
      const removed = await remove("/aggregates/user/eve", 200, { "If-Match": etag });
      assert.equal(last("user.eve").headers["Hf-Deleted"], "1");
      assert.equal(removed["version"], `1.${last("user.eve").sequence}`);
      await get("/aggregates/user/eve", "reader", 404);
    });

    it("sets and removes single records as parts of their aggregates", async () => {
      const { etag } = await get("/tables/secret/records/1", "auditor");
      const body = await put("/tables/secret/records/1", { row: { id: 1, user_id: "ada", hash: "h2" } }, 200,
        { "If-Match": etag });
      assert.deepEqual([body["name"], body["version"]], ["user.ada", `1.${last("user.ada").sequence}`]);
      await put("/tables/secret/records/2", { row: { id: 2, user_id: "ada", hash: "h3" } }, 201);
      assert.deepEqual((await get("/aggregates/user/ada")).body.rows["secret"]?.length, 2);
      await remove("/tables/secret/records/1", 200, { "If-Match": "*" });
      assert.deepEqual((await get("/aggregates/user/ada")).body.rows["secret"], [{ id: 2, user_id: "ada" }]);
      await remove("/tables/user/records/ada", 200, { "If-Match": "*" });
      assert.deepEqual([await stored("user", "ada"), await stored("secret", 2)], [[], []]);
      assert.equal(last("user.ada").headers["Hf-Deleted"], "1");
    });

    it("does not move a record to another aggregate, nor make one that belongs to none", async () => {
      const moved = await put("/tables/secret/records/1", { row: { id: 1, user_id: "bob", hash: "h" } }, 400,
        { "If-Match": "*" });
      assert.match(moved.error.message, /belongs to user\.ada/);
      await put("/tables/secret/records/9", { row: { id: 9, user_id: "nobody", hash: "h" } }, 400);
      const key = await put("/tables/secret/records/1", { row: { id: 2, user_id: "ada", hash: "h" } }, 400, { "If-Match": "*" });
      assert.match(key.error.message, /those of the path/);
    });

    it("names every mistake of a body, and never repeats a value", async () => {
      const body = await put("/aggregates/user/ada", { colour: 1 }, 400, { "If-Match": "*" });
      assert.match(body.error.message, /"colour"/);
      const wrong = { rows: { user: [{ id: 5, domain_id: null, seen_at: null, more: "swordfish" }], secret: "swordfish",
        event: [] } };
      const { error } = await put("/aggregates/user/ada", wrong, 400, { "If-Match": "*" });
      for (const part of ["event", "user[0].id", "user[0].domain_id", "user[0].name", "user[0].seen_at", "\"more\"",
        "rows.secret"]) {
        assert.ok(error.message.includes(part), `${part} in ${error.message}`);
      }
      assert.doesNotMatch(JSON.stringify([error, stage.lines]), /swordfish/);
    });

    it("refuses rows that make no aggregate", async () => {
      for (const rowsGiven of [{ user: [], secret: [] }, { user: [ADA, ADA], secret: [] },
        { user: [{ ...ADA, id: "other" }], secret: [] },
        { user: [ADA], secret: [{ id: 1, user_id: "bob", hash: "h" }] }]) {
        const { error } = await put("/aggregates/user/ada", { rows: rowsGiven }, 400, { "If-Match": "*" });
        assert.equal(error.code, "E_OPERATION_INPUT");
      }
    });

    it("says what the database refuses, and changes nothing", async () => {
      const taken = { rows: { user: [{ ...ADA, name: "Bob" }], secret: [] } };
      assert.equal((await put("/aggregates/user/ada", taken, 409, { "If-Match": "*" })).error.code, "E_ROWS_UNIQUE");
      await insert("group", [{ id: "g", name: "g" }]);
      await insert("membership", [{ user_id: "ada", group_id: "g" }]);
      assert.equal((await remove("/aggregates/user/ada", 409, { "If-Match": "*" })).error.code, "E_ROWS_REFERENCE");
      assert.deepEqual((await stored("user", "ada")).map((row) => row["name"]), ["Ada"]);
    });

    it("refuses counted keys that only sites count", async () => {
      const body = await put("/tables/secret/records/1073741824", { row: { id: 2 ** 30, user_id: "ada", hash: "h" } }, 400);
      assert.equal(body.error.code, "E_OPERATION_INPUT");
    });

    it("answers 202 when the stream cannot take it, and it gets there later", async () => {
      stage.feed.cut("away");
      const body = await put("/aggregates/user/ada", image("Patient"), 202, { "If-Match": "*" });
      assert.equal(body["outcome"], "unpublished");
      assert.deepEqual((await stored("user", "ada")).map((row) => row["name"]), ["Patient"]);
      const before = last("user.ada").sequence;
      stage.feed.cut(undefined);
      await stage.capture.publish([{ kind: "user", values: ["ada"] }]);
      assert.ok(last("user.ada").sequence > before);
    });
  });

  describe("tokens", () => {
    it("are needed for everything, the document included", async () => {
      for (const path of ["/v1/openapi.json", `${BASE}/tables`, "/nothing"]) {
        const answer = await stage.listener.call("get", path, undefined);
        assert.deepEqual([answer.status, (answer.body as Body).error.code], [401, "E_ACCESS_DENIED"]);
        assert.equal(answer.headers["www-authenticate"], "Bearer");
      }
    });

    it("do what their scopes say and no more", async () => {
      assert.equal((await put("/aggregates/user/eve", { rows: {} }, 403, {}, "reader")).error.code, "E_ACCESS_DENIED");
      await remove("/aggregates/user/ada", 403, { "If-Match": "*" }, "auditor");
      await get("/tables", "elsewhere", 403);
      const unseen = await stage.listener.call("get", "/v1/nothing/tables", "elsewhere");
      assert.equal(unseen.status, 403);
    });

    it("without secrets keep secret columns as they are, and can neither set nor make them", async () => {
      const kept = { rows: { user: [{ ...ADA, name: "Kept" }], secret: [{ id: 1, user_id: "ada" }] } };
      await put("/aggregates/user/ada", kept, 200, { "If-Match": "*" }, "writer");
      assert.deepEqual((await stored("secret", 1)).map((row) => row["hash"]), [HASH]);
      const written = { rows: { user: [ADA], secret: [{ id: 1, user_id: "ada", hash: "chosen" }] } };
      await put("/aggregates/user/ada", written, 403, { "If-Match": "*" }, "writer");
      const made = { rows: { user: [ADA], secret: [{ id: 1, user_id: "ada" }, { id: 2, user_id: "ada" }] } };
      assert.match((await put("/aggregates/user/ada", made, 400, { "If-Match": "*" }, "writer")).error.message,
        /needs the scope secrets/);
      await put("/tables/secret/records/1", { row: { id: 1, user_id: "ada" } }, 200, { "If-Match": "*" }, "writer");
      assert.deepEqual((await stored("secret", 1)).map((row) => row["hash"]), [HASH]);
    });

    it("that are wrong are refused, and after too many nobody from there is heard", async () => {
      for (let tries = 0; tries < 20; tries += 1) {
        const wrong = await stage.listener.call("get", `${BASE}/tables`, undefined).set("Authorization", `Bearer wrong-${tries}`);
        assert.equal(wrong.status, 401);
      }
      const answer = await stage.listener.call("get", `${BASE}/tables`, "admin");
      assert.equal(answer.status, 429);
      assert.ok(Number(answer.headers["retry-after"]) > 0);
    });

    it("are named in the log of every write, with the aggregate and never with values", async () => {
      await put("/aggregates/user/ada", { rows: { user: [{ ...ADA, name: "Logged" }], secret: [] } }, 200, { "If-Match": "*" });
      const line = stage.lines.find(({ message }) => message.startsWith("a record was written"));
      assert.deepEqual([line?.facts["token"], line?.facts["key"], line?.facts["version"]],
        ["admin", "user.ada", `1.${last("user.ada").sequence}`]);
      await put("/aggregates/user/ada", { rows: {} }, 400, { "If-Match": "*" });
      assert.ok(stage.lines.some(({ level, facts }) => level === "warn" && facts["code"] === "E_OPERATION_INPUT"));
      assert.doesNotMatch(JSON.stringify(stage.lines), new RegExp(`Logged|${HASH}|${TOKENS.admin}`));
    });
  });

  describe("as a server", () => {
    it("refuses methods, bodies that are no JSON and bodies that are too large, and goes on", async () => {
      const post = await stage.listener.call("post", `${BASE}/tables/user/records`, "admin").send({});
      assert.deepEqual([post.status, post.headers["allow"]], [405, "GET"]);
      const call = (): ReturnType<typeof stage.listener.call> => stage.listener.call("put", `${BASE}/aggregates/user/ada`,
        "admin")
        .set("Content-Type", "application/json").set("If-Match", "*");
      const broken = await call().send("{\"rows\": swordfish");
      assert.deepEqual([broken.status, (broken.body as Body).error.code], [400, "E_REQUEST_MALFORMED"]);
      assert.doesNotMatch(broken.text, /swordfish/);
      const large = await call().send(`"${"x".repeat(9_000_000)}"`).catch((error: unknown) => error);
      if (large instanceof Error) assert.match(large.message, /ECONNRESET|EPIPE|socket hang up/);
      else assert.equal((large as { status: number }).status, 413);
      await get("/tables");
    });

    it("answers HEAD like GET, and says no more about itself than needed", async () => {
      const head = await stage.listener.call("head", `${BASE}/aggregates/user/ada`, "reader");
      assert.equal(head.status, 200);
      assert.deepEqual([head.headers["x-powered-by"], head.headers["cache-control"]], [undefined, "no-store"]);
      assert.ok(head.headers["etag"]);
    });

    it("lists tables and kinds with what the database says of them", async () => {
      const { body } = await get("/tables");
      const user = (body["tables"] as Body[]).find((table) => table["name"] === "user");
      const seen = (user?.["columns"] as Body[]).find((column) => column["name"] === "seen_at");
      assert.deepEqual([seen?.["local"], seen?.["live"], seen?.["nullable"]], [true, "datetime", true]);
      const { body: kinds } = await get("/kinds");
      assert.deepEqual((kinds["kinds"] as Body[]).map((kind) => kind["name"]), [...toy.kinds.keys()]);
    });
  });
});

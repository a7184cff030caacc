/**
 * Program: the fastest upstream that still changes a row. Answers `PATCH /v3/users/{id}` with one UPDATE in the centre's Keystone
 * database and everything else with an empty object. Keystone takes 15 to 50 ms for such a call, beside which a proxy cannot be
 * seen; here it can. It is no Keystone: no tokens, no checks.
 *
 * Started by bench/ with the path of a file that says where to listen and which database it is.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import pg from "pg";
import { z } from "zod";

const settingsShape = z.object({ port: z.int(), database: z.object({ host: z.string(), port: z.int(), user: z.string(),
  password: z.string(), name: z.string() }) });
const bodyShape = z.object({ user: z.object({ description: z.string() }) });
const CONNECTIONS = 8;
const KEEP_ALIVE_MS = 300_000;
const UPDATE = `UPDATE "user" SET extra = $2 WHERE id = $1`;

const { port, database } = settingsShape.parse(JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")));
const { name, ...access } = database;
const pool = new pg.Pool({ ...access, database: name, max: CONNECTIONS });

async function answer(method: string | undefined, path: string, body: string): Promise<{ status: number; text: string }> {
  const id = /^\/v3\/users\/([0-9a-f]{32})$/.exec(path)?.[1];
  if (method !== "PATCH" || id === undefined) return { status: 200, text: "{}" };
  const { user } = bodyShape.parse(JSON.parse(body));
  const { rowCount } = await pool.query({ name: "update", text: UPDATE, values: [id, JSON.stringify(user)] });
  return rowCount === 1 ? { status: 200, text: JSON.stringify({ user: { id, ...user } }) } : { status: 404, text: "{}" };
}

const server = createServer((question, response) => {
  let body = "";
  question.setEncoding("utf8").on("data", (chunk: string) => { body += chunk; });
  question.on("end", () => {
    void answer(question.method, question.url ?? "", body).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      return { status: 500, text: "{}" };
    }).then(({ status, text }) => {
      response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) }).end(text);
    });
  });
});
server.keepAliveTimeout = KEEP_ALIVE_MS;
server.listen(port, "127.0.0.1");
process.once("SIGTERM", () => process.exit(0));

/**
 * What the row port promises about connections, on real servers: lost answers, restarts, frozen servers, full pools. Method: a
 * relay between adapter and server that cuts the line exactly when a statement has passed; the server stopped and frozen by pid.
 */
import assert from "node:assert/strict";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { isOperating } from "../../core/errors.ts";
import type { DatabaseOptions } from "../../rows/dialect.ts";
import type { Rows } from "../../rows/rows.ts";
import type { ServerProcess } from "../support/postgres.ts";
import { everything, PARENT, refused } from "./rows-samples.ts";

export interface ConnectionHarness {
  readonly open: (changes: Partial<DatabaseOptions>) => Rows;
  readonly options: () => DatabaseOptions;
  readonly server: () => { readonly process: ServerProcess; start(): Promise<void>;
    execute(database: string, sql: string): Promise<readonly Record<string, unknown>[]> };
  /** A statement that ends every session of the tests' own database. */
  readonly terminate: string;
}

/** A relay that lets bytes through until a piece from the client matches `cutAfter`; that piece still reaches the server. */
async function relay(port: number, cutAfter: RegExp): Promise<{ readonly port: number; close(): void }> {
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      open.add(socket);
      socket.on("error", () => undefined);
    }
    let isCut = false;
    client.on("data", (piece) => {
      isCut ||= cutAfter.test(piece.toString("latin1"));
      upstream.write(piece);
    });
    upstream.on("data", (piece) => {
      // The answer proves that the server did the work; the client never gets it.
      if (isCut) client.destroy();
      else client.write(piece);
    });
    upstream.on("close", () => client.destroy());
    client.on("close", () => upstream.end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

async function settles<T>(work: () => Promise<T>, withinMs: number): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isOperating(error, "E_ROWS_UNAVAILABLE") || performance.now() > deadline) throw error;
    }
  }
}

/** Registers the promises about connections for one engine. */
export function connectionSuite(harness: ConnectionHarness): void {
  describe("connections", () => {
    let opened: Rows[] = [];
    const open = (changes: Partial<DatabaseOptions> = {}): Rows => {
      const rows = harness.open(changes);
      opened.push(rows);
      return rows;
    };
    afterEach(async () => {
      await Promise.all(opened.map((rows) => rows.close()));
      opened = [];
    });

    it("answers a commit whose answer was lost with 'unknown', and the rows may be there", async () => {
      const line = await relay(harness.options().port, /COMMIT(?!TED)/);
      const rows = open({ port: line.port });
      const row = { a: "maybe", b: 1, name: "maybe" };
      await refused("E_ROWS_COMMIT_UNKNOWN", rows.transaction((write) => write.insert(PARENT, [row])));
      const found = await open().snapshot((read) => read.select(PARENT, everything(PARENT, ["maybe", 1])));
      assert.equal(found.length, 1);
      line.close();
    });

    it("answers a connection lost before the commit with 'unavailable', and stores nothing", async () => {
      const line = await relay(harness.options().port, /INSERT/);
      const rows = open({ port: line.port });
      await refused("E_ROWS_UNAVAILABLE", rows.transaction((write) => write.insert(PARENT, [{ a: "no", b: 1, name: "no" }])));
      assert.deepEqual(await open().snapshot((read) => read.select(PARENT, everything(PARENT, ["no", 1]))), []);
      line.close();
    });

    it("takes new connections by itself when the server ended the idle ones", async () => {
      const rows = open();
      const work = (): Promise<unknown> => rows.snapshot((read) => read.page(PARENT, { limit: 1 }));
      await Promise.all([work(), work(), work()]);
      await harness.server().execute(harness.options().database, harness.terminate).catch(() => undefined);
      await work();
      assert.equal(await rows.ping(), true);
    });

    it("says 'unavailable' while the server is away and works again when it is back", async () => {
      const rows = open();
      await rows.snapshot((read) => read.page(PARENT, { limit: 1 }));
      await harness.server().process.stop("SIGKILL");
      await refused("E_ROWS_UNAVAILABLE", rows.snapshot((read) => read.page(PARENT, { limit: 1 })));
      assert.equal(await rows.ping(), false);
      await harness.server().start();
      await settles(() => rows.snapshot((read) => read.page(PARENT, { limit: 1 })), 10_000);
    }).timeout(60_000);

    it("gives up on a server that has stopped answering", async () => {
      const rows = open({ statementTimeoutMs: 300, connectTimeoutMs: 300 });
      await rows.snapshot((read) => read.page(PARENT, { limit: 1 }));
      await harness.server().process.frozen(async () => {
        await refused("E_ROWS_UNAVAILABLE", rows.snapshot((read) => read.page(PARENT, { limit: 1 })));
        assert.equal(await rows.ping(), false);
      });
      await settles(() => rows.snapshot((read) => read.page(PARENT, { limit: 1 })), 10_000);
    }).timeout(60_000);

    it("ends a wait for a lock with contention", async () => {
      const rows = open({ statementTimeoutMs: 2000 });
      await rows.transaction((write) => write.insert(PARENT, [{ a: "x", b: 1, name: "x" }]));
      await rows.transaction(async (write) => {
        await write.lock(PARENT, everything(PARENT, ["x", 1]));
        await refused("E_ROWS_CONTENDED", rows.transaction((other) => other.lock(PARENT, everything(PARENT, ["x", 1]))));
      });
    });

    it("does not start with a wrong password or at a wrong port, and does not wait for ever for a free connection", async () => {
      await refused("E_ROWS_UNAVAILABLE", open({ database: "no_such_database" }).reflect());
      await refused("E_ROWS_UNAVAILABLE", open({ port: 1 }).reflect());
      const rows = open({ poolMax: 1, statementTimeoutMs: 500 });
      await rows.snapshot(async () => {
        await refused("E_ROWS_UNAVAILABLE", rows.snapshot((read) => read.page(PARENT, { limit: 1 })));
      });
    });

    it("refuses work after it was closed", async () => {
      const rows = open();
      await rows.reflect();
      await rows.close();
      await refused("E_ROWS_UNAVAILABLE", rows.snapshot((read) => read.page(PARENT, { limit: 1 })));
      assert.equal(await rows.ping(), false);
    });
  });
}

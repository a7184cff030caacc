/**
 * NATS JetStream on a real server: the contract of every feed, with the exact rights of a site, and what only a server can do:
 * go away, come back, be full, be misconfigured, refuse, speak TLS.
 */
import assert from "node:assert/strict";
import { jetstreamManager, type JetStreamManager, type StreamConfig } from "@nats-io/jetstream";
import { isOperating } from "../../core/errors.ts";
import { Secret } from "../../core/secret.ts";
import type { JetstreamFeed, JetstreamOptions } from "../../feed/jetstream.ts";
import { streamSettings } from "../../feed/settings.ts";
import { FEED_USERS, joined, openFeed, rawly, requireNatsServer, startNats, type NatsServer,
  type NatsSettings } from "../support/nats.ts";
import { askingContract } from "./feed-asking.suite.ts";
import { feedContract, follow, kindFilter, put, readAll, SERVICE, stored, until, type FeedSubject } from "./feed.suite.ts";

const STREAM = "HOLDFAST_IDENTITY";
const USER = "os.v1.identity.all.user.a";
const ASK_SITE = "os.ask.v1.identity.site.edge1";
const unavailable = (error: unknown): boolean => isOperating(error, "E_FEED_UNAVAILABLE");

const managed = <T>(nats: NatsServer, work: (manager: JetStreamManager) => Promise<T>): Promise<T> =>
  rawly(nats, "centre", async (raw) => work(await jetstreamManager(raw)));

let binary = "";
const servers: NatsServer[] = [];
async function server(more: Partial<NatsSettings> = {}): Promise<NatsServer> {
  const nats = await startNats(binary, { users: FEED_USERS, ...more });
  servers.push(nats);
  return nats;
}

/** No test here may leave a rejected promise behind. */
const unhandled: unknown[] = [];
const noteUnhandled = (reason: unknown): void => void unhandled.push(reason);

before(function () {
  process.on("unhandledRejection", noteUnhandled);
});

after(async () => {
  for (const nats of servers) await nats.remove();
  process.off("unhandledRejection", noteUnhandled);
  assert.deepEqual(unhandled, []);
});

const opened = (tls: boolean) => async (suite: Mocha.Context): Promise<FeedSubject> => {
  binary = requireNatsServer(suite);
  const nats = await server({ tls });
  const [centre, other, site] = [openFeed(nats, "centre"), openFeed(nats, "centre"), openFeed(nats, "site")];
  await joined(centre, other, site);
  await centre.ensureStream();
  return { centre, other, site,
    purge: async (subject) => void await managed(nats, (manager) => manager.streams.purge(STREAM, { filter: subject })),
    disturbReaders: async () => {
      await nats.stop();
      await nats.start();
      await joined(centre, other, site);
    },
    close: async () => {
      await Promise.all([centre, other, site].map((feed) => feed.close()));
      await nats.remove();
    } };
};

for (const tls of [false, true]) feedContract(tls ? "JetStream over TLS" : "JetStream", opened(tls));
askingContract("JetStream", opened(false));

describe("the feed and its server", function () {
  this.timeout(60_000);
  let nats: NatsServer;
  let opened: JetstreamFeed[] = [];
  const use = (role: "centre" | "site", more: Partial<JetstreamOptions> = {}): JetstreamFeed => {
    const feed = openFeed(nats, role, more);
    opened.push(feed);
    return feed;
  };

  before(function () {
    binary = requireNatsServer(this);
  });
  beforeEach(async () => {
    nats = await server();
  });
  afterEach(async () => {
    await Promise.all(opened.map((feed) => feed.close()));
    opened = [];
    await nats.remove();
  });

  it("opens while the server is away, fails at once with the reason, and joins when it comes", async () => {
    await nats.stop();
    const centre = use("centre");
    await until("it has tried", () => /refused/.test(centre.disconnected() ?? ""));
    await assert.rejects(put(centre, USER, 0, "x"), unavailable);
    await assert.rejects(centre.last(USER), unavailable);
    await assert.rejects(readAll(centre, kindFilter("user"), 0), unavailable);
    centre.report("os.status.v1.identity.edge1", Buffer.from("dropped"));
    await nats.start();
    await joined(centre);
    assert.match(centre.serverVersion() ?? "", /^\d+\.\d+\.\d+/);
    await centre.ensureStream();
    await stored(centre, USER, 0);
  });

  it("serves from when the server comes, whenever it was asked to, and fails a question in flight when that goes", async () => {
    await nats.stop();
    const [centre, site] = [use("centre"), use("site")];
    const heard: string[] = [];
    site.serve(ASK_SITE, (question) => {
      heard.push(Buffer.from(question).toString());
      return Buffer.from(question).toString() === "never" ? new Promise(() => undefined) : Promise.resolve(question);
    });
    await assert.rejects(centre.ask(ASK_SITE, Buffer.from("?"), 1_000), unavailable);
    await nats.start();
    await joined(centre, site);
    await until("the site answers", () => centre.ask(ASK_SITE, Buffer.from("?"), 1_000).then(() => true, () => false));
    const begin = performance.now();
    const asked = centre.ask(ASK_SITE, Buffer.from("never"), 60_000);
    asked.catch(() => undefined);
    await until("it was heard", () => heard.includes("never"));
    await nats.kill();
    await assert.rejects(asked, unavailable);
    assert.ok(performance.now() - begin < 30_000);
  });

  it("closes while it has never been connected", async () => {
    await nats.stop();
    const centre = openFeed(nats, "centre");
    await centre.close();
    await assert.rejects(centre.last(USER), unavailable);
  });

  it("keeps trying with a wrong password and says so without naming it", async () => {
    const centre = use("centre", { password: new Secret("not-the-word") });
    await until("it has tried", () => /uthoriz/.test(centre.disconnected() ?? ""));
    assert.doesNotMatch(centre.disconnected() ?? "", /not-the-word/);
  });

  it("fails what is in flight when the server dies, and keeps what was acknowledged across an orderly restart", async () => {
    const centre = use("centre");
    await joined(centre);
    await centre.ensureStream();
    const sequence = await stored(centre, USER, 0);
    nats.freeze(true);
    const inFlight = Promise.allSettled(Array.from({ length: 50 }, (_, number) => put(centre, `${USER}${number}`, 0, "x")));
    await nats.kill();
    for (const outcome of await inFlight) {
      assert.ok(outcome.status === "rejected" && unavailable(outcome.reason));
    }
    await nats.start();
    await joined(centre);
    await stored(centre, USER, sequence);
    await nats.stop();
    await nats.start();
    await joined(centre);
    assert.equal((await centre.last(USER))?.sequence, (await centre.state()).lastSequence);
  });

  it("never reads past a gap while the server is restarted again and again", async () => {
    const [centre, site] = [use("centre"), use("site")];
    await joined(centre, site);
    await centre.ensureStream();
    const keys = Array.from({ length: 400 }, (_, number) => `os.v1.identity.all.user.k${number}`);
    const seen: number[] = [];
    let stop = false;
    const readingOn = (async () => {
      let position = 0;
      while (!stop) {
        try {
          const batches = site.read({ filter: kindFilter("user"), after: position, batchMessagesMax: 50, batchBytesMax: 1e6 },
            new AbortController().signal);
          for await (const batch of batches) {
            for (const message of batch) seen.push(message.sequence);
            position = batch.at(-1)?.sequence ?? position;
            if (stop) break;
          }
        } catch (error) {
          assert.ok(unavailable(error), String(error));
          await new Promise((resolve) => setImmediate(resolve));
          await until("the site is back", () => stop || site.disconnected() === undefined);
        }
      }
    })();
    const sequences: number[] = [];
    for (const [place, key] of keys.entries()) {
      if (place % 100 === 50) {
        await nats.stop();
        await nats.start();
        await joined(centre);
      }
      sequences.push(await stored(centre, key, 0));
    }
    await until("everything arrived", () => seen.length >= sequences.length);
    stop = true;
    await stored(centre, "os.v1.identity.all.user.last", 0);
    await readingOn;
    assert.deepEqual(seen.slice(0, sequences.length), sequences);
  });

  it("ends a reading whose consumer was deleted by somebody else", async () => {
    const [centre, site] = [use("centre"), use("site")];
    await joined(centre, site);
    await centre.ensureStream();
    const tail = await follow(site, kindFilter("user"), 0);
    await managed(nats, (manager) => manager.consumers.delete(STREAM, "edge1"));
    await until("the reading ended", () => tail.ended());
    assert.ok(unavailable(tail.failure()), String(tail.failure()));
  });

  it("ends a reading whose server has stopped answering without closing the connection", async () => {
    const [centre, site] = [use("centre"), use("site")];
    await joined(centre, site);
    await centre.ensureStream();
    const tail = await follow(site, kindFilter("user"), 0);
    nats.freeze(true);
    await until("the reading ended", () => tail.ended());
    nats.freeze(false);
    assert.match(String(tail.failure()), /silent/);
  });

  it("ends the older of two readings when another process of the same site takes the consumer", async () => {
    const [centre, site, twin] = [use("centre"), use("site"), use("site")];
    await joined(centre, site, twin);
    await centre.ensureStream();
    const older = await follow(site, kindFilter("user"), 0);
    const newer = await follow(twin, kindFilter("user"), 0);
    await until("the older reading ended", () => older.ended());
    assert.ok(unavailable(older.failure()));
    assert.equal(newer.failure(), undefined);
    await newer.stop();
  });

  it("lets readings of one consumer name on one feed wait for each other", async () => {
    const [centre, site] = [use("centre"), use("site")];
    await joined(centre, site);
    await centre.ensureStream();
    for (let number = 0; number < 300; number += 1) await stored(centre, `os.v1.identity.all.user.${number}`, 0);
    const both = await Promise.all([readAll(site, kindFilter("user"), 0), readAll(site, kindFilter("user"), 0)]);
    assert.deepEqual(both.map((messages) => messages.length), [300, 300]);
  });

  it("takes overwrites on a full stream and refuses new subjects", async () => {
    const centre = use("centre");
    await joined(centre);
    const tiny = streamSettings({ service: SERVICE, replicas: 1, sizeBytesMax: 20_000 });
    await managed(nats, (manager) => manager.streams.add(tiny));
    const names: string[] = [];
    await assert.rejects(async () => {
      for (let number = 0; number < 100; number += 1) {
        await stored(centre, `os.v1.identity.all.user.f${number}`, 0, "x".repeat(1000));
        names.push(`os.v1.identity.all.user.f${number}`);
      }
    }, (error) => isOperating(error, "E_FEED_FULL"));
    const [name] = names;
    assert.ok(name !== undefined && names.length > 10);
    await stored(centre, name, (await centre.last(name))?.sequence ?? 0, "y".repeat(1000));
    assert.equal((await readAll(centre, kindFilter("user"), 0)).length, names.length);
  });

  it("makes a smaller stream on a server with less storage, and leaves room for others", async () => {
    await nats.remove();
    nats = await server({ storageBytesMax: 1024 ** 3 });
    for (const service of ["identity", "image", "compute", "network", "volume"]) {
      const centre = use("centre", { service, streamBytesMax: 8 * 1024 ** 3 });
      await joined(centre);
      const { sizeBytesMax } = await centre.ensureStream();
      assert.ok(sizeBytesMax >= 64 * 1024 ** 2 && sizeBytesMax < 1024 ** 3);
      assert.equal((await centre.ensureStream()).sizeBytesMax, sizeBytesMax);
    }
  });

  it("enlarges a safe stream and keeps what is in it", async () => {
    const small = use("centre", { streamBytesMax: 64 * 1024 ** 2 });
    await joined(small);
    await small.ensureStream();
    await stored(small, USER, 0);
    const large = use("centre", { streamBytesMax: 128 * 1024 ** 2 });
    await joined(large);
    assert.equal((await large.ensureStream()).sizeBytesMax, 128 * 1024 ** 2);
    assert.equal((await small.ensureStream()).sizeBytesMax, 128 * 1024 ** 2);
    assert.equal((await large.last(USER))?.sequence, 1);
  });

  const unsafe: readonly (readonly [keyof StreamConfig, Partial<StreamConfig>])[] = [
    ["max_msgs_per_subject", { max_msgs_per_subject: 5 }], ["discard", { discard: "old" }],
    ["max_age", { max_age: 3_600e9 }], ["max_msgs", { max_msgs: 1000 }],
    ["retention", { retention: "interest" }],
    ["storage", { storage: "memory" }], ["subjects", { subjects: ["os.v1.identity.all.>"] }],
  ];
  for (const [setting, change] of unsafe) {
    it(`refuses an existing stream whose ${setting} is not safe, names it and leaves it alone`, async () => {
      const settings = { ...streamSettings({ service: SERVICE, replicas: 1, sizeBytesMax: 1e6 }), ...change };
      await managed(nats, (manager) => manager.streams.add(settings));
      const centre = use("centre");
      await joined(centre);
      await assert.rejects(centre.ensureStream(),
        (error) => isOperating(error, "E_FEED_MISCONFIGURED") && error.message.includes(setting));
      const found = await managed(nats, (manager) => manager.streams.info(STREAM));
      assert.equal(found.config.max_bytes, 1e6);
    });
  }

  it("names a created time that changes when the stream is made again", async () => {
    const centre = use("centre");
    await joined(centre);
    const before_ = await centre.ensureStream();
    await stored(centre, USER, 0);
    await managed(nats, (manager) => manager.streams.delete(STREAM));
    await assert.rejects(centre.state(), unavailable);
    const after_ = await centre.ensureStream();
    assert.notEqual(after_.created, before_.created);
    assert.equal(after_.lastSequence, 0);
  });

  it("refuses before sending what the server's own payload limit forbids", async () => {
    await nats.remove();
    nats = await server({ maxPayloadBytes: 64 * 1024 });
    const centre = use("centre");
    await joined(centre);
    await centre.ensureStream();
    await assert.rejects(put(centre, USER, 0, new Uint8Array(64 * 1024)), (error) => isOperating(error, "E_IMAGE_TOO_LARGE"));
    await stored(centre, USER, 0, new Uint8Array(63 * 1024));
  });

  it("sends reports that others hear", async () => {
    const [centre, site] = [use("centre"), use("site")];
    await joined(centre, site);
    await rawly(nats, "centre", async (raw) => {
      const heard: string[] = [];
      raw.subscribe("os.status.v1.identity.*", { callback: (_error, message) => { heard.push(message.string()); } });
      await raw.flush();
      site.report("os.status.v1.identity.edge1", Buffer.from("well"));
      await until("the report was heard", () => heard.length === 1);
    });
  });
});

/**
 * What a site's user may do on a real server with exactly the lists of feed/permissions.ts: enough to follow its scope, and
 * nothing else. One test for each thing that must be refused.
 */
import assert from "node:assert/strict";
import { AssertionError } from "../../core/assert.ts";
import { isOperating } from "../../core/errors.ts";
import type { JetstreamFeed } from "../../feed/jetstream.ts";
import { auditAskSubject, siteAskSubject } from "../../feed/subjects.ts";
import { FEED_USERS, joined, openFeed, rawly, requireNatsServer, startNats, type NatsServer } from "../support/nats.ts";
import { follow, kindFilter, put, readAll, rising, stored, textOf, until } from "./feed.suite.ts";

const STREAM = "HOLDFAST_IDENTITY";
const USER = "os.v1.identity.all.user.a";
const forbidden = (error: unknown): boolean => isOperating(error, "E_FEED_FORBIDDEN");

describe("the rights of a site", function () {
  this.timeout(60_000);
  let nats: NatsServer;
  let centre: JetstreamFeed;
  let site: JetstreamFeed;
  before(async function () {
    nats = await startNats(requireNatsServer(this), { users: FEED_USERS });
    [centre, site] = [openFeed(nats, "centre"), openFeed(nats, "site")];
    await joined(centre, site);
    await centre.ensureStream();
    await stored(centre, USER, 0, "for all");
    await stored(centre, "os.v1.identity.edge2.user.b", 0, "for edge2 alone");
  });
  after(async () => {
    await Promise.all([centre, site].map((feed) => feed?.close()));
    await nats?.remove();
  });

  it("cover reading the scope, one kind of it, one subject of it, and its last messages", async () => {
    for (const filter of ["os.v1.identity.all.>", "os.v1.identity.all.user.>", USER]) {
      assert.deepEqual((await readAll(site, filter, 0)).map(textOf), ["for all"]);
      const tail = await follow(site, filter, 0);
      await until("it arrived", () => tail.messages.length === 1);
      await tail.stop();
      assert.equal(tail.failure(), undefined);
    }
    assert.equal(textOf(await site.last(USER)), "for all");
  });

  it("do not cover publishing images", async () => {
    await assert.rejects(put(site, USER, 1, "forged"), forbidden);
    assert.equal(textOf(await centre.last(USER)), "for all");
  });

  it("do not cover another scope, by filter or by subject", async () => {
    await assert.rejects(readAll(site, "os.v1.identity.edge2.>", 0), forbidden);
    await assert.rejects(site.last("os.v1.identity.edge2.user.b"), forbidden);
    const wider = await follow(site, "os.v1.identity.>", 0);
    assert.ok(wider.ended() && forbidden(wider.failure()));
  });

  const body = (name: string, filter: string): string => JSON.stringify({ stream_name: STREAM,
    config: { name, filter_subject: filter, ack_policy: "none", deliver_policy: "all", inactive_threshold: 1e10 } });
  const refusedSubjects: readonly (readonly [string, string, string])[] = [
    ["a consumer of another name", `$JS.API.CONSUMER.CREATE.${STREAM}.edge2.os.v1.identity.all.>`,
      body("edge2", "os.v1.identity.all.>")],
    ["a consumer without a filter", `$JS.API.CONSUMER.CREATE.${STREAM}.edge1`, body("edge1", "")],
    ["an unnamed consumer", `$JS.API.CONSUMER.CREATE.${STREAM}`, body("", "os.v1.identity.all.>")],
    ["a durable consumer", `$JS.API.CONSUMER.DURABLE.CREATE.${STREAM}.edge1`, body("edge1", "os.v1.identity.all.>")],
    ["pulling from another site's consumer", `$JS.API.CONSUMER.MSG.NEXT.${STREAM}.edge2`, "1"],
    ["deleting another site's consumer", `$JS.API.CONSUMER.DELETE.${STREAM}.edge2`, ""],
    ["listing consumers", `$JS.API.CONSUMER.NAMES.${STREAM}`, ""],
    ["the stream's state", `$JS.API.STREAM.INFO.${STREAM}`, JSON.stringify({ subjects_filter: ">" })],
    ["the names of streams", "$JS.API.STREAM.NAMES", ""],
    ["a message by sequence", `$JS.API.STREAM.MSG.GET.${STREAM}`, JSON.stringify({ seq: 2 })],
    ["a direct get by sequence", `$JS.API.DIRECT.GET.${STREAM}`, JSON.stringify({ seq: 2 })],
    ["purging", `$JS.API.STREAM.PURGE.${STREAM}`, ""],
    ["deleting the stream", `$JS.API.STREAM.DELETE.${STREAM}`, ""],
    ["changing the stream", `$JS.API.STREAM.UPDATE.${STREAM}`, "{}"],
    ["the account's figures", "$JS.API.INFO", ""],
    ["another site's status", "os.status.v1.identity.edge2", "forged"],
    ["asking the auditor as another site", "os.ask.v1.identity.audit.edge2", "forged"],
    ["asking another site", "os.ask.v1.identity.site.edge2", "forged"],
    ["answering for another site", "os.answer.v1.identity.edge2.1", "forged"],
    ["answering into another's inbox", "_INBOX_centre.1", "forged"],
  ];
  for (const [what, subject, payload] of refusedSubjects) {
    it(`do not cover ${what}`, async () => {
      await rawly(nats, "edge1", async (raw) => {
        await assert.rejects(raw.request(subject, payload, { timeout: 2_000 }), /Permissions Violation/i);
      });
    });
  }

  it("do not cover a filter in the body that differs from the one in the subject", async () => {
    await rawly(nats, "edge1", async (raw) => {
      const subject = `$JS.API.CONSUMER.CREATE.${STREAM}.edge1.os.v1.identity.all.>`;
      const answer = await raw.request(subject, body("edge1", "os.v1.identity.>"));
      assert.equal(answer.json<{ error?: { err_code: number } }>().error?.err_code, 10131);
    });
  });

  for (const subject of ["os.v1.identity.all.>", "_INBOX_edge2.>", "_INBOX.>", "$JS.ACK.>", "os.status.v1.>", ">",
    "os.ask.v1.identity.audit.*", "os.ask.v1.identity.site.edge2", "os.ask.v1.>", "os.answer.v1.>"]) {
    it(`do not cover subscribing to ${subject}`, async () => {
      await rawly(nats, "edge1", async (raw) => {
        const refused = new Promise<Error>((resolve) => {
          raw.subscribe(subject, { callback: (error) => { if (error !== null) resolve(error); } });
        });
        assert.match((await refused).message, /Permissions Violation/i);
      });
    });
  }

  it("cover asking the auditor as itself, and answering what the centre asks it", async () => {
    const said = (text: string) => (): Promise<Uint8Array> => Promise.resolve(Buffer.from(text));
    const stops = [centre.serve(auditAskSubject("identity", "*"), said("the auditor")),
      site.serve(siteAskSubject("identity", "edge1"), said("the site"))];
    const asked = async (feed: JetstreamFeed, subject: string): Promise<string> => {
      await until(`${subject} is served`, () => feed.ask(subject, Buffer.from("?"), 2_000).then(() => true, () => false));
      return Buffer.from(await feed.ask(subject, Buffer.from("?"), 2_000)).toString();
    };
    assert.equal(await asked(site, auditAskSubject("identity", "edge1")), "the auditor");
    assert.equal(await asked(centre, siteAskSubject("identity", "edge1")), "the site");
    for (const stop of stops) stop();
  });

  it("do not let a site hear what another one is asked, nor ask or purge in its stead", async () => {
    const heard: string[] = [];
    const stop = site.serve(siteAskSubject("identity", "edge2"), (question) => {
      heard.push(Buffer.from(question).toString());
      return Promise.resolve(question);
    });
    await assert.rejects(centre.ask(siteAskSubject("identity", "edge2"), Buffer.from("?"), 500),
      (error) => isOperating(error, "E_ASK_UNANSWERED"));
    await assert.rejects(site.ask(auditAskSubject("identity", "edge2"), Buffer.from("?"), 2_000), forbidden);
    await assert.rejects(site.purge(USER, 1), AssertionError);
    assert.deepEqual(heard, []);
    stop();
  });

  it("leave messages in rising order for a site that reads while the centre writes", async () => {
    const tail = await follow(site, kindFilter("project"), 0);
    await Promise.all(Array.from({ length: 500 }, (_, number) => stored(centre, `os.v1.identity.all.project.${number}`, 0)));
    await until("all arrived", () => tail.messages.length === 500);
    await tail.stop();
    assert.ok(rising(tail.messages));
  });
});

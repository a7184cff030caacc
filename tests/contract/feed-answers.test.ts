/** What a server's answers and settings mean, for answers that Debian's server does not give: newer versions, clusters. */
import assert from "node:assert/strict";
import { JetStreamApiError, type StreamConfig } from "@nats-io/jetstream";
import { PermissionViolationError, RequestError, TimeoutError } from "@nats-io/transport-node";
import { conflictOf, frameOf, meaningOf, placeOf } from "../../feed/answers.ts";
import { compareServerVersions, streamRepairs, streamSettings, unsafeSettings, versionWarning } from "../../feed/settings.ts";
import { Turns } from "../../feed/turns.ts";

const refusal = (code: number, description: string): JetStreamApiError =>
  new JetStreamApiError({ code: 400, err_code: code, description });

describe("a server's answer", () => {
  it("is a conflict with the sequence it names, or without one", () => {
    assert.deepEqual(conflictOf(refusal(10071, "wrong last sequence: 42")), { last: 42 });
    assert.deepEqual(conflictOf(refusal(10071, "wrong last sequence: 0")), { last: 0 });
    assert.deepEqual(conflictOf(refusal(10164, "wrong last sequence")), { last: undefined });
    assert.equal(conflictOf(refusal(10077, "maximum bytes exceeded")), "other");
    assert.equal(conflictOf(new Error("anything")), "other");
  });

  it("has one code each for full, too large, forbidden, and in doubt", () => {
    const codeOf = (error: unknown): string => meaningOf(error, "trying").code;
    for (const code of [10002, 10023, 10028, 10047]) assert.equal(codeOf(refusal(code, "limits")), "E_FEED_FULL");
    assert.equal(codeOf(refusal(10077, "maximum bytes exceeded")), "E_FEED_FULL");
    assert.equal(codeOf(refusal(10077, "write store/blk: no space left on device")), "E_FEED_FULL");
    assert.equal(codeOf(refusal(10077, "store is closed")), "E_FEED_UNAVAILABLE");
    assert.equal(codeOf(refusal(10054, "message size exceeds maximum allowed")), "E_IMAGE_TOO_LARGE");
    assert.equal(codeOf(refusal(10008, "JetStream system temporarily unavailable")), "E_FEED_UNAVAILABLE");
    const violation = new PermissionViolationError("no", "publish", "os.v1.x");
    assert.equal(codeOf(violation), "E_FEED_FORBIDDEN");
    assert.equal(codeOf(new RequestError("no", { cause: violation })), "E_FEED_FORBIDDEN");
    assert.equal(codeOf(new TimeoutError()), "E_FEED_UNAVAILABLE");
    assert.equal(codeOf("a string"), "E_FEED_UNAVAILABLE");
  });

  it("places a message by the short and the long form of its reply subject", () => {
    assert.deepEqual(placeOf("$JS.ACK.S.edge1.1.70.3.1795344545959196680.5"), { sequence: 70, delivery: 3 });
    assert.deepEqual(placeOf("$JS.ACK.domain.account.S.edge1.1.70.3.1795344545959196680.5.token"), { sequence: 70, delivery: 3 });
    assert.equal(placeOf("_INBOX.x"), undefined);
    assert.equal(placeOf("$JS.ACK.S.edge1"), undefined);
  });

  it("ends a pull request, ends the reading, or shows that the server is alive", () => {
    assert.equal(frameOf(100, "Idle Heartbeat"), "alive");
    for (const [code, text] of [[404, "No Messages"], [408, "Request Timeout"], [409, "Message Size Exceeds MaxBytes"],
      [409, "Batch Completed"]] as const) assert.equal(frameOf(code, text), "over");
    for (const [code, text] of [[409, "Consumer Deleted"], [409, "Leadership Change"], [409, "Server Shutdown"], [503, ""],
      [400, "Bad Request"]] as const) assert.equal(frameOf(code, text), "broken");
  });
});

describe("a server's version", () => {
  it("is compared by number, not by text", () => {
    assert.equal(compareServerVersions("2.9.10", "2.9.9"), 1);
    assert.equal(compareServerVersions("2.11.5", "2.11.5"), 0);
    assert.equal(compareServerVersions("2.9.25", "2.10.0"), -1);
    assert.equal(compareServerVersions("2.12.0-RC.3", "2.12.0"), 0);
  });

  it("is warned of below 2.10, and below 2.11.5 in a cluster", () => {
    assert.match(versionWarning("2.9.10", false) ?? "", /older images/);
    assert.match(versionWarning("2.11.4", true) ?? "", /cluster/);
    assert.equal(versionWarning("2.10.27", false), undefined);
    assert.equal(versionWarning("2.11.5", true), undefined);
  });
});

describe("the settings of a stream", () => {
  const wanted = streamSettings({ service: "identity", replicas: 3, sizeBytesMax: 1000 });
  const found = { ...wanted } as StreamConfig;

  it("are safe as they are made, and need nothing", () => {
    assert.deepEqual(unsafeSettings(found, wanted), []);
    assert.equal(streamRepairs(found, wanted), undefined);
  });

  it("are unsafe when sealed, fed by another stream or silent, each named", () => {
    const faults = unsafeSettings({ ...found, sealed: true, no_ack: true, sources: [{ name: "OTHER" }] }, wanted);
    assert.equal(faults.length, 3);
  });

  it("are raised, never lowered", () => {
    assert.deepEqual(streamRepairs({ ...found, max_bytes: 10, num_replicas: 1, allow_direct: false, deny_purge: true }, wanted),
      { max_bytes: 1000, num_replicas: 3, allow_direct: true, deny_purge: false });
    assert.equal(streamRepairs({ ...found, max_bytes: 9999, num_replicas: 5 }, wanted), undefined);
  });
});

describe("turns", () => {
  it("are taken one at a time, in order, and a waiting one that is aborted leaves the queue", async () => {
    const turns = new Turns();
    const never = new AbortController().signal;
    const impatient = new AbortController();
    const order: string[] = [];
    const leaveFirst = await turns.take("a", never);
    const second = turns.take("a", impatient.signal).then((leave) => { order.push("gave up"); leave(); });
    const third = turns.take("a", never).then((leave) => { order.push("third"); leave(); });
    const otherName = await turns.take("b", never);
    otherName();
    impatient.abort();
    await second;
    assert.deepEqual(order, ["gave up"]);
    leaveFirst();
    await third;
    assert.deepEqual(order, ["gave up", "third"]);
    (await turns.take("a", never))();
  });
});

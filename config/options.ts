/**
 * Every option of Holdfast, once. The type of a loaded configuration, the checks, the names of environment variables and
 * docs/reference/options.md all come from here.
 *
 * Invariants: every bound of the product is an option here or a named constant beside its use; defaults are safe for a first
 * start; nothing here names a real host, path or password.
 * Not here: reading (load.ts), what the options do (the rooms that are handed them).
 */
import { SERVICES } from "../schemas/catalog.ts";
import { choice, filePath, flag, integer, list, many, maybe, secret, section, text, type Law, type Shape } from "./declare.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const MEBIBYTE = 1024 * 1024;
const GIBIBYTE = 1024 * MEBIBYTE;

const HOST = { pattern: /^[0-9A-Za-z._:-]{1,255}$/, expected: "a host name or an IP address" };
/** One token of a feed subject: what JetStream permissions and subject filters are built from. */
const TOKEN = { pattern: /^[0-9A-Za-z_-]{1,64}$/, expected: "1 to 64 letters, digits, _ or -" };
const ANY_TEXT = { pattern: /^\P{Cc}{1,255}$/u, expected: "1 to 255 characters on one line" };

const port = (meaning: string, byDefault?: number) =>
  integer({ least: 0, most: 65_535, meaning: `${meaning} 0 takes any free port.`,
    ...(byDefault === undefined ? {} : { byDefault }) });

const site = text({ ...TOKEN, meaning: "Name of the cloud this process runs in; part of feed subjects and of every log line." });
const service = choice([...SERVICES.keys()], { meaning: "The OpenStack service, by the name of its file under schemas/." });

const admin = (byDefault: number) => section("Health, readiness, metrics and status for operators. Carries no passwords, "
  + "but keep it off public networks.", {
  host: text({ ...HOST, byDefault: "127.0.0.1", meaning: "Address to listen on." }),
  port: port("Port to listen on.", byDefault),
});

const log = section("The log: JSON lines on standard output.", {
  level: choice(["debug", "info", "warn", "error"], { byDefault: "info", meaning: "Lines below this level are left out." }),
});

const database = section("The service's own database.", {
  engine: choice(["postgres", "mariadb"], { meaning: "Which database it is; mariadb also stands for Galera clusters." }),
  host: maybe(text({ ...HOST, meaning: "Host of the writer. A replica would give old rows." }), "socketPath is used"),
  socketPath: maybe(filePath({ expected: "a path", meaning: "Unix socket (mariadb), or the folder that holds it (postgres)." }),
    "host is used"),
  port: maybe(integer({ least: 1, most: 65_535, meaning: "Port of the database." }), "5432 for postgres, 3306 for mariadb"),
  name: text({ ...ANY_TEXT, meaning: "Name of the database." }),
  user: text({ ...ANY_TEXT, meaning: "User that reads (proxy) or writes (syncd) the service's tables." }),
  password: maybe(secret({ meaning: "Password of that user." }), "the database must accept the user without one"),
  poolMax: integer({ least: 1, most: 200, unit: "connections", byDefault: 8, meaning: "Connections to the database at most." }),
  connectTimeoutMs: integer({ least: 100, most: MINUTE_MS, unit: "ms", byDefault: 5_000,
    meaning: "Longest wait for a connection." }),
  statementTimeoutMs: integer({ least: 100, most: HOUR_MS, unit: "ms", byDefault: 30_000,
    meaning: "Longest run of one statement." }),
}, [
  { fields: ["host", "socketPath"], at: "host", expected: "either host or socketPath",
    broken: ({ host, socketPath }) => (host === undefined) === (socketPath === undefined)
      ? (host === undefined ? "neither" : "both") : undefined },
]);

const certificatePair: Law<{ readonly cert: string | undefined; readonly key: string | undefined }> = {
  fields: ["cert", "key"], at: "cert", expected: "cert and key together",
  broken: ({ cert, key }) => (cert === undefined) === (key === undefined) ? undefined
    : `only ${cert === undefined ? "key" : "cert"}`,
};

const feedFields = {
  servers: list(text({ pattern: /^(?:nats|tls):\/\/[0-9A-Za-z._[\]:-]+$/, expected: "nats://host:port or tls://host:port",
    meaning: "A stream server." }),
  { least: 1, most: 16, meaning: "Stream servers; any of one cluster. Name at least two of a cluster of three." }),
  user: maybe(text({ ...ANY_TEXT, meaning: "User at the stream server." }), "the server must accept unnamed clients"),
  password: maybe(secret({ meaning: "Password of that user." }), "no password is sent"),
  tls: maybe(section("TLS towards the stream servers.", {
    ca: filePath({ expected: "a path", meaning: "Certificates (PEM) of the authorities that sign the servers." }),
    cert: maybe(filePath({ expected: "a path", meaning: "Own certificate (PEM)." }), "the client shows no certificate"),
    key: maybe(filePath({ expected: "a path", meaning: "Own private key (PEM)." }), "the client shows no certificate"),
  }, [certificatePair]), "the connection is not encrypted unless a server is named with tls://"),
  scope: text({ ...TOKEN, byDefault: "all", meaning: "Which sites may read; \"all\" is every site." }),
  replicas: integer({ least: 1, most: 5, unit: "servers", byDefault: 1,
    meaning: "Servers that keep a copy of the stream: 1, 3 or 5. Use 3 with a cluster; 1 survives no loss of a disk." }),
  streamBytesMax: integer({ least: MEBIBYTE, most: 1024 * GIBIBYTE, unit: "bytes", byDefault: 4 * GIBIBYTE,
    meaning: "Size of the stream at most. When it is full, new aggregates are refused (E_FEED_FULL); known ones still pass." }),
  imageBytesMax: integer({ least: 1024, most: 64 * MEBIBYTE, unit: "bytes", byDefault: 1_000_000,
    meaning: "Largest image. Keep it below the stream server's max_payload; larger aggregates raise E_IMAGE_TOO_LARGE." }),
  publishTimeoutMs: integer({ least: 100, most: MINUTE_MS, unit: "ms", byDefault: 5_000,
    meaning: "Longest wait for the stream server's acknowledgement." }),
};

type FeedPairs = { readonly user: string | undefined; readonly password: unknown; readonly replicas: number };

const feedLaws: readonly Law<FeedPairs>[] = [
  { fields: ["user", "password"], at: "user", expected: "user and password together",
    broken: ({ user, password }) => (user === undefined) === (password === undefined)
      ? undefined : `only ${user === undefined ? "password" : "user"}` },
  { fields: ["replicas"], at: "replicas", expected: "an odd number, because a majority must agree",
    broken: ({ replicas }) => (replicas % 2 === 1 ? undefined : String(replicas)) },
];

const feed = (jitterByDefaultMs: number) => section("The stream server that carries changes.", {
  ...feedFields,
  reconnectJitterMs: integer({ least: 0, most: 10 * MINUTE_MS, unit: "ms", byDefault: jitterByDefaultMs,
    meaning: "After a lost connection, wait a random part of this time, so that sites do not all return at once." }),
}, feedLaws);

const apiFields = {
  url: text({ pattern: /^https?:\/\/[0-9A-Za-z._[\]:-]+(?:\/[^\s?#]*)?$/,
    expected: "an http or https URL without user name, query or fragment", meaning: "Where the API listens." }),
  keepAlive: choice(["auto", true, false], { byDefault: "auto", meaning: "Whether connections may be used again." }),
  chunkedRequests: choice(["auto", true, false], { byDefault: "auto",
    meaning: "Whether the API reads request bodies of unknown length. Some uWSGI services lose them." }),
  connectTimeoutMs: integer({ least: 10, most: MINUTE_MS, unit: "ms", byDefault: 2_000,
    meaning: "Longest wait for a connection. After it the call was certainly not executed." }),
  firstByteTimeoutMs: integer({ least: 100, most: HOUR_MS, unit: "ms", byDefault: 75_000,
    meaning: "Longest wait for the first byte of an answer. After it the outcome of a mutating call is unknown." }),
  idleTimeoutMs: integer({ least: 100, most: HOUR_MS, unit: "ms", byDefault: 5 * MINUTE_MS,
    meaning: "Longest silence inside a body, in either direction." }),
  connectionsMax: integer({ least: 1, most: 10_000, unit: "connections", byDefault: 128,
    meaning: "Connections to the API at most; further calls wait." }),
  ca: maybe(filePath({ expected: "a path", meaning: "Certificates (PEM) of the authorities that sign an https API." }),
    "the system's authorities are trusted"),
};

const upstream = section("The OpenStack API behind this proxy; at a site, the site's own. Servers differ in what they can do; "
  + "auto is found out by a probe at start.", apiFields);

const reach = section("When the central cloud counts as cut off, and when as back.", {
  probeEveryMs: integer({ least: 100, most: HOUR_MS, unit: "ms", byDefault: 5_000,
    meaning: "Pause between two probes while nobody calls and all is well." }),
  probeAgainMs: integer({ least: 10, most: MINUTE_MS, unit: "ms", byDefault: 300,
    meaning: "Pause between two probes while something is wrong." }),
  probeTimeoutMs: integer({ least: 50, most: MINUTE_MS, unit: "ms", byDefault: 1_000,
    meaning: "A probe that was not answered after this long has failed: above four round trips of the link." }),
  failuresMax: integer({ least: 1, most: 100, unit: "signs", byDefault: 2,
    meaning: "Signs in a row until the centre is cut off: the first may be a call that failed or waits, others are probes." }),
  goodProbesMin: integer({ least: 1, most: 100, unit: "answers", byDefault: 2,
    meaning: "Answers in a row until it is back." }),
});

const centre = section("The central cloud, at a site's proxy: which of the two answers is decided call by call.", {
  ...apiFields,
  profile: choice(["centre-first", "local-first"], { byDefault: "centre-first",
    meaning: "Who answers reads and sign-ins: the centre while it can be reached, or the site while its rows are fresh." }),
  syncd: text({ pattern: /^http:\/\/[0-9A-Za-z._[\]:-]+$/, expected: "an http URL without a path",
    byDefault: "http://127.0.0.1:9480",
    meaning: "Admin server of the site's sync daemon, which knows how old the site's rows are." }),
  freshWithinMs: integer({ least: 100, most: HOUR_MS, unit: "ms", byDefault: 20_000,
    meaning: "Rows of at most this age are fresh enough for local-first; above the period of the auditor's heartbeats." }),
  ownWritesMs: integer({ least: 0, most: HOUR_MS, unit: "ms", byDefault: 10_000,
    meaning: "After a change through this proxy its caller is answered by the centre for this long." }),
  patienceMs: integer({ least: 10, most: MINUTE_MS, unit: "ms", byDefault: 500,
    meaning: "A call that waits for the centre for longer makes the proxy ask whether the centre is there." }),
  retryAfterMs: integer({ least: 1_000, most: HOUR_MS, unit: "ms", byDefault: 30_000,
    meaning: "Told as Retry-After to clients whose change was refused because the centre is cut off." }),
  truthHeaders: flag({ byDefault: true,
    meaning: "Answers of the site while the centre is cut off say so: X-Holdfast-Served-By, -Data-Age (seconds), -Position." }),
  reach,
});

const intents = section("The intent journal: durable notes of mutating calls that were begun. Give each proxy its own folder "
  + "on a local disk.", {
  folder: filePath({ expected: "a folder", meaning: "Folder of the journal; created when missing." }),
  segmentBytesMax: integer({ least: 64 * 1024, most: GIBIBYTE, unit: "bytes", byDefault: 16 * MEBIBYTE,
    meaning: "Size of one journal file." }),
  sizeBytesMax: integer({ least: MEBIBYTE, most: 64 * GIBIBYTE, unit: "bytes", byDefault: 256 * MEBIBYTE,
    meaning: "Size of the whole journal. At this size it counts as unwritable." }),
  whenUnwritable: choice(["forward", "refuse"], { byDefault: "forward",
    meaning: "Mutating calls while the journal cannot be written: forward them and scan the service later, or refuse them." }),
}, [
  { fields: ["segmentBytesMax", "sizeBytesMax"], at: "segmentBytesMax", expected: "at most half of sizeBytesMax",
    broken: ({ segmentBytesMax, sizeBytesMax }) => (segmentBytesMax * 2 <= sizeBytesMax ? undefined : String(segmentBytesMax)) },
]);

const listen = section("Where clients reach the service through the proxy.", {
  host: text({ ...HOST, byDefault: "127.0.0.1", meaning: "Address to listen on." }),
  port: port("Port to listen on."),
  tls: maybe(section("TLS towards clients.", {
    cert: filePath({ expected: "a path", meaning: "Certificate chain (PEM)." }),
    key: filePath({ expected: "a path", meaning: "Private key (PEM)." }),
  }), "clients speak plain HTTP"),
});

const settle = section("Services may write rows after they have answered; the proxy reads the changed aggregates again.", {
  delaysMs: list(integer({ least: 10, most: HOUR_MS, unit: "ms", meaning: "Delay after the answer." }),
    { least: 0, most: 8, byDefault: [2_000, 30_000], meaning: "When to read again, counted from the publish, ascending." }),
}, [
  { fields: ["delaysMs"], at: "delaysMs", expected: "ascending delays",
    broken: ({ delaysMs }) => delaysMs.every((delayMs, place) => place === 0 || delayMs > (delaysMs[place - 1] ?? 0))
      ? undefined : `[${delaysMs.join(", ")}]` },
]);

const guard = section("Differences that nobody asked for by a call are held for a person when they are too many at once.", {
  sharePercentMax: integer({ least: 0, most: 100, unit: "percent", byDefault: 10,
    meaning: "Held above this share of a kind's aggregates, if it is also more than aggregatesMax. 100 holds nothing." }),
  aggregatesMax: integer({ least: 0, most: 10_000_000, unit: "aggregates", byDefault: 50,
    meaning: "Never held up to this many, unless a table is empty that never is." }),
  windowMs: integer({ least: 0, most: HOUR_MS, unit: "ms", byDefault: MINUTE_MS,
    meaning: "Differences within this time count together." }),
});

/** proxy.yaml: one process in front of one OpenStack API. */
export const proxyOptions = section("One proxy in front of one OpenStack API.", {
  service,
  site,
  listen,
  admin: admin(9_470),
  upstream,
  centre: maybe(centre, "every call goes to upstream"),
  capture: flag({ byDefault: true,
    meaning: "Publish what mutating calls change. false: only forward; then database, feed and intents are not needed." }),
  database: maybe(database, "allowed only with capture: false"),
  feed: maybe(feed(2_000), "allowed only with capture: false"),
  intents: maybe(intents, "allowed only with capture: false"),
  settle,
  lateMs: integer({ least: 100, most: 24 * HOUR_MS, unit: "ms", byDefault: 90_000,
    meaning: "After a call with unknown outcome, read its aggregates again this much later: the API may still be at work." }),
  guard,
  dirtyKeysMax: integer({ least: 100, most: 10_000_000, unit: "keys", byDefault: 100_000,
    meaning: "Aggregates waiting to be published. Above it their kind is scanned as a whole instead." }),
  drainTimeoutMs: integer({ least: 0, most: 10 * MINUTE_MS, unit: "ms", byDefault: 30_000,
    meaning: "At a stop signal, how long calls under way may take to finish." }),
  log,
}, [
  ...(["database", "feed", "intents"] as const).map((needed) => ({
    fields: ["capture", needed] as const, at: needed, expected: "a section, because capture is true",
    broken: (proxy: { readonly capture: boolean } & Readonly<Record<typeof needed, unknown>>) =>
      (proxy.capture && proxy[needed] === undefined ? "nothing" : undefined),
  })),
  { fields: ["lateMs", "upstream"], at: "lateMs", expected: "more than upstream.firstByteTimeoutMs, or it would read too early",
    broken: ({ lateMs, upstream: { firstByteTimeoutMs } }) =>
      (lateMs > firstByteTimeoutMs ? undefined : `${lateMs} (against ${firstByteTimeoutMs})`) },
  { fields: ["capture", "centre"], at: "centre", expected: "nothing, because capture is true: changes are captured at the centre",
    broken: ({ capture, centre: section_ }) => (capture && section_ !== undefined ? "a section" : undefined) },
  { fields: ["listen", "admin"], at: "admin.port", expected: "another port than listen.port",
    broken: ({ listen: clients, admin: operators }) =>
      (clients.port === operators.port && clients.port !== 0 && clients.host === operators.host
        ? String(operators.port) : undefined) },
]);

/** Parts of both files. */
export type DatabaseConfig = Shape<typeof database>;
export type FeedConfig = Shape<ReturnType<typeof feed>>;

/** proxy.yaml, loaded. */
export type ProxyConfig = Shape<typeof proxyOptions>;

const retry = section("Waiting before a failed step is tried again: doubling, with jitter.", {
  firstMs: integer({ least: 1, most: MINUTE_MS, unit: "ms", byDefault: 200, meaning: "Before the first repeat." }),
  lastMs: integer({ least: 1, most: HOUR_MS, unit: "ms", byDefault: 30_000, meaning: "Longest wait between two tries." }),
}, [
  { fields: ["firstMs", "lastMs"], at: "firstMs", expected: "at most lastMs",
    broken: ({ firstMs, lastMs }) => (firstMs <= lastMs ? undefined : `${firstMs} (against ${lastMs})`) },
]);

const batch = section("What is applied in one transaction.", {
  changesMax: integer({ least: 1, most: 10_000, unit: "changes", byDefault: 500, meaning: "Changes in one batch at most." }),
  bytesMax: integer({ least: 64 * 1024, most: 256 * MEBIBYTE, unit: "bytes", byDefault: 4 * MEBIBYTE,
    meaning: "Size of one batch, about. A single larger image still travels alone." }),
});

const audit = section("The auditor (role centre): compares the databases with the streams and tells the sites what there is.", {
  everyMs: integer({ least: 1_000, most: 24 * HOUR_MS, unit: "ms", byDefault: 10 * MINUTE_MS,
    meaning: "Between two audits. One also follows every reconnection to the stream servers." }),
  heartbeatEveryMs: integer({ least: 100, most: 10 * MINUTE_MS, unit: "ms", byDefault: 15_000,
    meaning: "Between two heartbeats." }),
  rereadEveryMs: integer({ least: 1_000, most: 24 * HOUR_MS, unit: "ms", byDefault: HOUR_MS,
    meaning: "Between two complete readings of the stream; one also follows every reconnection." }),
  tombstonesKeptMs: integer({ least: HOUR_MS, most: 10 * 365 * 24 * HOUR_MS, unit: "ms", byDefault: 30 * 24 * HOUR_MS,
    meaning: "Tombstones are collected after this time. Sites that were away for longer read everything anew." }),
  pageKeysMax: integer({ least: 10, most: 10_000, unit: "aggregates", byDefault: 1_000,
    meaning: "Aggregates read from the database at a time." }),
});

const rowAudit = section("The row audit (role site): compares rows with the images they came from, online or not.", {
  enabled: flag({ byDefault: true, meaning: "Whether rows are compared at all." }),
  rowsPerSecondMax: integer({ least: 1, most: 1_000_000, unit: "rows/s", byDefault: 2_000, meaning: "Speed of the comparison." }),
  restMs: integer({ least: 0, most: 24 * HOUR_MS, unit: "ms", byDefault: 5 * MINUTE_MS, meaning: "Pause between two passes." }),
});

const records = section("The database sync API: read and write records of the synchronised tables over HTTPS, with tokens.", {
  host: text({ ...HOST, byDefault: "127.0.0.1", meaning: "Address to listen on." }),
  port: port("Port to listen on.", 9_490),
  tls: section("Own certificate; the API is never served in the clear.", {
    cert: filePath({ expected: "a path", meaning: "Certificate chain (PEM)." }),
    key: filePath({ expected: "a path", meaning: "Private key (PEM)." }),
  }),
  tokens: many(section("Somebody who may use the API.", {
    name: text({ ...TOKEN, meaning: "Who it is, for the log." }),
    token: secret({ meaning: "The bearer token; at least 32 characters." }),
    scopes: list(choice(["read", "secrets", "write"],
      { meaning: "What it may do: read records, see secret columns, change records." }),
      { least: 1, most: 3, meaning: "What it may do." }),
    services: list(service, { least: 0, most: 64, byDefault: [], meaning: "Only these services; empty: all." }),
  }), { least: 1, most: 64 }),
});

const syncedService = section("A service whose changes this site applies.", {
  service,
  database,
  memcached: list(text({ pattern: /^(?:unix:\/[^\s]+|[0-9A-Za-z._-]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5})$/,
    expected: "unix:/path or host:port", meaning: "A memcached." }), { least: 0, most: 32, byDefault: [],
    meaning: "The memcached servers that the service uses at this site; what they hold about changed rows is deleted." }),
  capture: choice(["proxy", "triggers", "both"], { byDefault: "proxy",
    meaning: "Role centre: whether changes are learnt from the proxies' calls, from triggers in the database, or from both." }),
});

/** syncd.yaml: one process per site, and one at the centre. */
export const syncdOptions = section("One sync daemon: at a site it follows the centre, at the centre it audits.", {
  site,
  role: choice(["site", "centre"], { byDefault: "site", meaning: "site: apply changes; centre: audit, heartbeats, manifests." }),
  admin: admin(9_480),
  feed: feed(MINUTE_MS),
  services: many(syncedService, { least: 1, most: 64 }),
  batch,
  parkedMax: integer({ least: 100, most: 10_000_000, unit: "changes", byDefault: 100_000,
    meaning: "Changes waiting for a parent row. Above it the site stops reading and says so." }),
  quarantinedMax: integer({ least: 10, most: 1_000_000, unit: "changes", byDefault: 10_000,
    meaning: "Changes that the database refuses. Above it the site stops reading and says so." }),
  softWaitMs: integer({ least: 0, most: HOUR_MS, unit: "ms", byDefault: 5_000,
    meaning: "How long a change waits for a row that it refers to without a foreign key." }),
  retry,
  guard,
  audit,
  rowAudit,
  manifestChecks: flag({ byDefault: true, meaning: "Role site: compare with every manifest and repair what differs." }),
  records: maybe(records, "the database sync API is off"),
  statusEveryMs: integer({ least: 100, most: HOUR_MS, unit: "ms", byDefault: 10_000,
    meaning: "Between two status reports to the centre." }),
  invalidateAgainMs: integer({ least: 0, most: MINUTE_MS, unit: "ms", byDefault: 3_000,
    meaning: "Caches are cleared at once and again after this time, for readers that filled them from old rows meanwhile." }),
  log,
}, [
  { fields: ["services"], at: "services", expected: "each service once", broken({ services }) {
    const names = services.map((entry) => entry.service);
    const twice = names.find((name, place) => names.indexOf(name) !== place);
    return twice === undefined ? undefined : `${twice} twice`;
  } },
]);

/** syncd.yaml, loaded. */
export type SyncdConfig = Shape<typeof syncdOptions>;

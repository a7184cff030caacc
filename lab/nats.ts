/**
 * The lab's stream server: nats-server with JetStream, reached over TLS only, with an authority of the lab's own and one user
 * per cloud. Its store is small and its limits are the lab's; what a production cluster needs is in the operations guide.
 */
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { run } from "./commands.ts";
import { ensureFolder, writeWhole } from "./files.ts";
import { answersOk } from "./http.ts";
import { CENTRE, SITES } from "./options.ts";
import { authorizationBlock, CENTRE_PERMISSIONS, permissionsOf } from "./permissions.ts";
import type { ProcessPlan } from "./processes.ts";
import { pathsOf, portOf, type LabRecord } from "./record.ts";

const CERTIFICATE_DAYS = 3650;
/** Largest message: the image of one aggregate. The server itself advises against more than 8 MiB. */
const PAYLOAD_MAX_BYTES = 8 * 1024 * 1024;

interface NatsFiles {
  readonly configuration: string;
  readonly certificate: string;
  readonly key: string;
  readonly store: string;
}

function filesOf(record: LabRecord): NatsFiles {
  const { config } = pathsOf(record);
  return { configuration: join(config, "nats.conf"), certificate: join(config, "tls", "nats.pem"),
    key: join(config, "tls", "nats.key"), store: join(record.state, "nats") };
}

function configuration(record: LabRecord, services: readonly string[]): string {
  const files = filesOf(record);
  const users = [
    { name: CENTRE, password: record.natsPasswords.centre, permissions: CENTRE_PERMISSIONS },
    ...SITES.map((site) =>
      ({ name: site, password: record.natsPasswords[site], permissions: permissionsOf(site, services) })),
  ];
  return `# Written by the lab at every start; changes are lost.
server_name: "holdfast-lab"
listen: "127.0.0.1:${portOf(record, "nats")}"
http: "127.0.0.1:${portOf(record, "nats-monitor")}"
max_payload: ${PAYLOAD_MAX_BYTES}
jetstream { store_dir: ${JSON.stringify(files.store)}, max_mem: 256MB, max_file: 16GB }
tls { cert_file: ${JSON.stringify(files.certificate)}, key_file: ${JSON.stringify(files.key)} }
${authorizationBlock(users)}`;
}

/** Makes the authority and the server's certificate (for 127.0.0.1 and localhost); false when they are there. */
async function makeCertificates(record: LabRecord): Promise<boolean> {
  const paths = pathsOf(record);
  const { certificate, key } = filesOf(record);
  if (existsSync(certificate)) return false;
  const folder = join(paths.config, "tls");
  ensureFolder(folder, 0o700);
  const request = (subject: string, keyFile: string, certificateFile: string, more: readonly string[]): Promise<string> =>
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
      "-days", String(CERTIFICATE_DAYS), "-subj", `/O=Holdfast lab/CN=${subject}`, "-keyout", keyFile, "-out", certificateFile,
      ...more], { log: paths.prepareLog });
  const authorityKey = join(folder, "authority.key");
  await request("lab authority", authorityKey, paths.natsAuthority, ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
  // The certificate comes last: once it is there, all files are.
  await request("nats", key, `${certificate}.new`, ["-CA", paths.natsAuthority, "-CAkey", authorityKey,
    "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
    "-addext", "extendedKeyUsage=serverAuth"]);
  renameSync(`${certificate}.new`, certificate);
  return true;
}

/** Writes configuration and certificates. `services` are those that sites may follow. */
export async function prepareNats(record: LabRecord, services: readonly string[]): Promise<boolean> {
  const made = await makeCertificates(record);
  const files = filesOf(record);
  if (!existsSync(files.store)) mkdirSync(files.store, { mode: 0o700 });
  writeWhole(files.configuration, configuration(record, services));
  return made;
}

/** How the stream server is run; prepareNats comes first. */
export function natsPlan(record: LabRecord): ProcessPlan {
  const files = filesOf(record);
  const monitor = portOf(record, "nats-monitor");
  return { name: "nats", folder: record.state, ports: [portOf(record, "nats"), monitor],
    reads: [files.configuration, files.certificate], command: ["/usr/sbin/nats-server", "-c", files.configuration],
    // healthz answers 200 only when JetStream has recovered its streams.
    isReady: () => answersOk(`http://127.0.0.1:${monitor}/healthz`) };
}

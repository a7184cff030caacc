/**
 * What a lab can be asked to be: which clouds it has, which database engine each of them uses, which parts run, where it
 * lives; and every bound of the lab, once. The lab has one centre and one site; the names are fixed because tests,
 * documents and the two commands speak of them.
 *
 * Not here: reading the environment or arguments (main.ts), ports and passwords (record.ts).
 */
import { OperatingError } from "../core/errors.ts";

export const CENTRE = "centre";
export const SITES = ["edge1"] as const;
export type SiteName = (typeof SITES)[number];
export const CLOUDS = [CENTRE, ...SITES] as const;
export type CloudName = (typeof CLOUDS)[number];

export const ENGINES = ["postgres", "mariadb"] as const;
export type EngineName = (typeof ENGINES)[number];
/** The database engine of each cloud. */
export type Engines = Readonly<Record<CloudName, EngineName>>;

/** What a link can be; lab/relay.ts says what each means. */
export const LINK_STATES = ["pass", "drop", "reset", "blackhole", "oneway", "slow"] as const;
export type LinkState = (typeof LINK_STATES)[number];
/** The ways to cut one. */
export const CUTS = ["drop", "reset", "blackhole", "oneway", "slow"] as const satisfies readonly LinkState[];
export type Cut = (typeof CUTS)[number];

/** What can be started on its own; a part needs those before it. */
export const PARTS = ["databases", "nats", "keystone", "proxies", "syncd"] as const;
export type Part = (typeof PARTS)[number];

/** OpenStack services by the type that the catalogue gives them; the lab runs those of SERVICES_HERE. */
const SERVICES_KNOWN = ["identity", "image", "compute", "network", "volume"];
const SERVICES_HERE = ["identity"];

export interface LabOptions {
  /** Folder of the lab: configuration, logs, lab.json, clouds.yaml. Several labs live side by side in different folders. */
  readonly folder: string;
  /** Engine of each cloud's database; for a lab that exists already, what it was made with. */
  readonly engines?: Engines;
  /** Parts to start; all of them unless said otherwise. */
  readonly only?: readonly Part[];
  /** Run Holdfast from dist/ (as users do) or from its sources (always current, slower to start). Default "source". */
  readonly program?: "built" | "source";
  /** Told one line per step that took place. */
  readonly progress?: (line: string) => void;
}

/** Longest a command that works on files or rows may take (initdb, dump, restore, openssl). */
export const COMMAND_MS = 120_000;
/** Longest a package installation or `npm run build` may take. */
export const INSTALL_MS = 1_800_000;
/** Longest until a server process serves. Generous, because a busy machine is not a broken one. */
export const READY_MS = 120_000;
/** Longest a process that already ran may go without an answer before it is taken for hung and started again. */
export const HUNG_MS = 10_000;
/** Longest a process may take to end after it was asked to; then its process group is killed. */
export const STOP_MS = 15_000;
/** Longest until every process of a killed group is gone. */
export const KILL_MS = 10_000;
/** Longest until the port of a process that has ended is free again. */
export const PORT_MS = 3_000;
/** Longest one request of a readiness probe may take. */
export const PROBE_MS = 5_000;
/** Longest until the user made at the centre can sign in at the site. */
export const DEMONSTRATION_MS = 60_000;
/** A log larger than this is set aside (one older file is kept) when its process starts. */
export const LOG_SIZE_MAX_BYTES = 50 * 1024 * 1024;
/** Largest output of a command that is kept in memory. */
export const OUTPUT_MAX_BYTES = 4 * 1024 * 1024;

export const ENGINES_BY_DEFAULT: Engines = { centre: "postgres", edge1: "postgres" };

function isEngine(text: string | undefined): text is EngineName {
  return ENGINES.some((engine) => engine === text);
}

function isCloud(text: string | undefined): text is CloudName {
  return CLOUDS.some((cloud) => cloud === text);
}

/**
 * Engines from "postgres", "mariadb" or "centre=mariadb,edge1=postgres"; a cloud that is not named gets postgres.
 * @throws E_CONFIG for anything else.
 */
export function enginesFromText(text: string): Engines {
  if (isEngine(text)) return { centre: text, edge1: text };
  const engines: Record<CloudName, EngineName> = { ...ENGINES_BY_DEFAULT };
  for (const pair of text.split(",")) {
    const [cloud, engine, ...rest] = pair.split("=").map((part) => part.trim());
    if (!isCloud(cloud) || !isEngine(engine) || rest.length > 0) {
      throw new OperatingError("E_CONFIG",
        `"${text}" names no database pairing: write postgres, mariadb or centre=mariadb,edge1=postgres`);
    }
    engines[cloud] = engine;
  }
  return engines;
}

/**
 * Checks a list of services such as "identity".
 * @throws E_CONFIG for a service that the lab does not run.
 */
export function checkServices(text: string): void {
  for (const service of text.split(",").map((part) => part.trim())) {
    if (SERVICES_HERE.includes(service)) continue;
    throw new OperatingError("E_CONFIG", SERVICES_KNOWN.includes(service)
      ? `the lab does not run ${service} yet: it runs ${SERVICES_HERE.join(", ")}`
      : `"${service}" is no OpenStack service: the lab knows ${SERVICES_KNOWN.join(", ")} and runs ${SERVICES_HERE.join(", ")}`);
  }
}

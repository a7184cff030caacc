/** The plan shared by all saturating benchmarks: in every round each variant has its turn, and medians are taken over rounds. */
import type { Child } from "./children.ts";
import { mediansOf, turns, type Figures, type Table } from "./figures.ts";
import type { Stage } from "./stage.ts";
import { saturate, type Load } from "./wrk.ts";

/** One of the ways to the same answer. */
export interface Variant {
  readonly name: string;
  readonly port: number;
  /** The process whose work is measured; none when clients go straight to the upstream. */
  readonly tested?: Child;
}

export interface Effort {
  readonly rounds: number;
  readonly durationS: number;
  /** Calls per variant at a moderate rate. */
  readonly pacedCalls: number;
  /** Changes whose way to the site is timed, per variant. */
  readonly changes: number;
}

export const EFFORTS = {
  full: { rounds: 3, durationS: 3, pacedCalls: 1_000, changes: 300 },
  quick: { rounds: 1, durationS: 1, pacedCalls: 200, changes: 40 },
} as const satisfies Readonly<Record<string, Effort>>;

/** Not counted: code is compiled and connections are opened. */
const WARM_UP_S = 1;

export interface Contest {
  readonly title: string;
  readonly variants: readonly Variant[];
  readonly load: Load;
  readonly connections: number;
  readonly warmUp: boolean;
}

/** Figures over nginx's: what a proxy costs beside the best there is. Figures over direct: what any proxy costs. */
function withRatios(figures: Figures, direct: Figures | undefined, nginx: Figures | undefined): Figures {
  const ratio = (name: string, over: Figures | undefined): Figures => {
    const [mine, theirs] = [figures[name], over?.[name]];
    return mine === undefined || theirs === undefined || theirs === 0 ? {} : { [name]: mine / theirs };
  };
  return { ...figures, "req/s ÷ direct": ratio("req/s", direct)["req/s"] ?? Number.NaN,
    "req/s ÷ nginx": ratio("req/s", nginx)["req/s"] ?? Number.NaN,
    "CPU ÷ nginx": ratio("CPU µs/req", nginx)["CPU µs/req"] ?? Number.NaN };
}

const COLUMNS = ["req/s", "req/s ÷ direct", "req/s ÷ nginx", "CPU µs/req", "CPU ÷ nginx", "p50 ms", "p99 ms", "RSS MiB"];

/** Runs the contest; ratios are taken within each round, and then their medians. */
export async function compete(stage: Stage, contest: Contest, effort: Effort): Promise<Table> {
  const { variants, load, connections } = contest;
  // wrk takes the path of its URL where the script does not make one.
  const target = load.method === "GET" ? load.target : "";
  const perVariant = new Map<string, Figures[]>(variants.map(({ name }) => [name, []]));
  const shoot = ({ port, tested }: Variant, durationS: number): Promise<Figures> => saturate({
    url: `http://127.0.0.1:${port}${target}`, load, connections, durationS, cores: stage.cores, folder: stage.folder },
  tested?.usage);
  if (contest.warmUp) for (const variant of variants) await shoot(variant, WARM_UP_S);
  for (let round = 0; round < effort.rounds; round += 1) {
    const said = new Map<string, Figures>();
    for (const variant of turns(variants, round)) said.set(variant.name, await shoot(variant, effort.durationS));
    for (const { name } of variants) {
      const figures = said.get(name) ?? {};
      perVariant.get(name)?.push(withRatios(figures, said.get("direct"), said.get("nginx")));
    }
  }
  stage.say(`measured: ${contest.title}`);
  return { title: contest.title, columns: COLUMNS,
    rows: variants.map(({ name }) => ({ variant: name, figures: mediansOf(perVariant.get(name) ?? []) })) };
}

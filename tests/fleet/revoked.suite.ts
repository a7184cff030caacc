/**
 * Goal: authority that is taken away at the centre is gone at the site: within moments while it is connected, and before anything
 * else when it comes back from a cut with a long backlog. Method: real Keystones; a person with a token that the site's own
 * Keystone accepts; then the token is revoked, the person disabled, the role taken. Times are told, not asserted; order is.
 */
import { strict as assert } from "node:assert";
import { systemClock } from "../../core/clock.ts";
import { percentile } from "../../bench/figures.ts";
import type { Secret } from "../../core/secret.ts";
import type { Engines } from "../../lab/options.ts";
import { until } from "../../lab/waiting.ts";
import { AUDITED, Fleet, orSkip } from "../support/fleet.ts";
import { clones } from "../support/fleet-backlog.ts";
import { send, type Reply } from "../support/keystone-call.ts";

const START_MS = 300_000;
const SAMPLE_MS = 5_000;
const GONE_MS = 60_000;
const ARRIVED_MS = 60_000;
const PASSWORD = "a person's password";
const DOMAIN = "default";

export interface RevocationsAsked {
  readonly engines: Engines;
  /** How often each way is measured while the site is connected. */
  readonly times: number;
  /** Users that change at the centre while the site is cut off. */
  readonly backlog: number;
}

/** Somebody with a role on a project, signed in at the site. */
interface Person {
  readonly id: string;
  readonly project: string;
  readonly token: string;
}

const WAYS = ["token revoked", "user disabled", "role removed"] as const;
type Way = (typeof WAYS)[number];

/** What people do at the centre, and what the site's own Keystone makes of it. */
class Stage {
  readonly #fleet: Fleet;
  readonly #admin: Secret;
  readonly #role: string;
  #made = 0;

  constructor(fleet: Fleet, admin: Secret, role: string) {
    this.#fleet = fleet;
    this.#admin = admin;
    this.#role = role;
  }

  static async open(fleet: Fleet): Promise<Stage> {
    const admin = await fleet.token();
    const roles = await send(`${fleet.lab.endpoints.centre.direct}/v3/roles?name=member`,
      { method: "GET", headers: { "x-auth-token": admin.reveal() } });
    return new Stage(fleet, admin, roles.at("$.roles[*].id"));
  }

  #central(method: string, path: string, body?: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Reply> {
    return send(`${this.#fleet.centreUrl}/v3${path}`,
      { method, headers: { "x-auth-token": this.#admin.reveal(), ...headers }, body });
  }

  /** A new person who has a token of the site's own Keystone. */
  async person(): Promise<Person> {
    const name = `person-${(this.#made += 1)}`;
    const id = (await this.#central("POST", "/users", { user: { name, password: PASSWORD, domain_id: DOMAIN } })).at("$.user.id");
    const project = (await this.#central("POST", "/projects", { project: { name, domain_id: DOMAIN } })).at("$.project.id");
    const granted = await this.#central("PUT", `/projects/${project}/users/${id}/roles/${this.#role}`);
    assert.equal(granted.status, 204, granted.text);
    const signIn = { auth: { identity: { methods: ["password"], password: { user: { id, password: PASSWORD } } },
      scope: { project: { id: project } } } };
    let token: string | undefined;
    await until({ what: `${name}'s token at the site`, withinMs: ARRIVED_MS, log: this.#fleet.syncd.plan.log }, async () => {
      token = (await send(`${this.#fleet.lab.endpoints.edge1.direct}/v3/auth/tokens`, { method: "POST", body: signIn })).subject;
      return token !== undefined;
    });
    return { id, project, token: token ?? "" };
  }

  async takeAway(way: Way, { id, project, token }: Person): Promise<void> {
    const done = way === "token revoked" ? await this.#central("DELETE", "/auth/tokens", undefined, { "x-subject-token": token })
      : way === "user disabled" ? await this.#central("PATCH", `/users/${id}`, { user: { enabled: false } })
      : await this.#central("DELETE", `/projects/${project}/users/${id}/roles/${this.#role}`);
    assert.ok(done.status >= 200 && done.status < 300, `${way}: ${done.status} ${done.text}`);
  }

  /** Does the site's own Keystone accept the person's token? */
  async isAccepted({ token }: Person): Promise<boolean> {
    const seen = await send(`${this.#fleet.lab.endpoints.edge1.direct}/v3/auth/tokens`,
      { method: "HEAD", headers: { "x-auth-token": token, "x-subject-token": token } });
    return seen.status === 200;
  }

  /** Milliseconds from now until the site refuses the person's token. */
  async goneAfterMs(person: Person): Promise<number> {
    const startMs = systemClock.monotonicMs();
    await until({ what: "the end of a token at the site", withinMs: GONE_MS, log: this.#fleet.syncd.plan.log },
      async () => !await this.isAccepted(person));
    return systemClock.monotonicMs() - startMs;
  }
}

/** Registers the tests. */
export function authorityTakenAway({ engines, times, backlog }: RevocationsAsked): void {
  describe(`authority taken away on ${engines.centre}, at a site on ${engines.edge1}`, function () {
    this.timeout(START_MS);
    let fleet: Fleet;
    let stage: Stage;

    before(async function () {
      fleet = await Fleet.open(orSkip(this), engines, { ...AUDITED,
        audited: { ...AUDITED.audited, guard: { sharePercentMax: 100, windowMs: 0 } } });
      stage = await Stage.open(fleet);
    });
    after(() => (fleet as Fleet | undefined)?.close());

    for (const way of WAYS) {
      it(`is gone at a connected site (${way})`, async function () {
        this.timeout(START_MS + times * SAMPLE_MS);
        const tookMs: number[] = [];
        for (let time = 0; time < times; time += 1) {
          const person = await stage.person();
          assert.ok(await stage.isAccepted(person));
          await stage.takeAway(way, person);
          tookMs.push(await stage.goneAfterMs(person));
        }
        const shown = (share: number): number => Math.round(percentile(tookMs, share));
        process.stdout.write(`${JSON.stringify({ way, times, p50Ms: shown(0.5), p99Ms: shown(0.99), mostMs: shown(1) })}\n`);
      });
    }

    it(`is gone before ${backlog} other changes are applied when the site comes back from a cut`, async () => {
      const people = await Promise.all(WAYS.map(() => stage.person()));
      await fleet.equal();
      await fleet.lab.cut("edge1");
      await fleet.sql("centre", clones(engines.centre, "while-cut", backlog));
      await fleet.auditor.operate("audit", { now: true });
      for (const [index, way] of WAYS.entries()) await stage.takeAway(way, people[index] ?? assert.fail("one each"));
      await fleet.quiet(fleet.proxy);
      const waiting = async (): Promise<number> => {
        const there = await fleet.sql("edge1", "SELECT count(*) FROM local_user WHERE name LIKE 'while-cut-%';");
        return backlog - Number(/\d+/.exec(there)?.[0] ?? "0");
      };
      assert.equal(await waiting(), backlog, "the site is cut off");
      await fleet.lab.heal("edge1");
      const healedMs = systemClock.monotonicMs();
      await Promise.all(people.map((person) => stage.goneAfterMs(person)));
      const [goneMs, left] = [Math.round(systemClock.monotonicMs() - healedMs), await waiting()];
      const seconds = await fleet.converged();
      process.stdout.write(`${JSON.stringify({ backlog, goneMs, waitingThen: left, convergedSeconds: seconds })}\n`);
      assert.ok(left > 0, "the backlog was applied first");
    });
  });
}

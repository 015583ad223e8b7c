import { setTimeout as delay } from 'node:timers/promises';
import type { GroupServer, MemberState } from './group-server.js';

const FORM_DEADLINE_MS = 3 * 60_000;
const PROBE_EVERY_MS = 500;

interface Found {
  server: GroupServer;
  report: MemberState;
}

/**
 * Keeps servers together in one group (Group Replication, single primary): what a person would do
 * after a restart. Servers run with `group_replication_start_on_boot=OFF`. A group that stopped as
 * a whole must begin from the server that has every transaction, and no server knows by itself
 * which one that is.
 */
export class GroupCare {
  private lastPrimary: GroupServer | undefined;

  constructor(
    private readonly servers: readonly GroupServer[],
    private readonly log: (line: string) => void = () => undefined,
  ) {}

  /**
   * Waits until every server is in the group, and sees to it that they are. Throws when that takes
   * too long.
   */
  async form(signal?: AbortSignal): Promise<void> {
    const until = performance.now() + FORM_DEADLINE_MS;
    let reason: unknown;
    while (performance.now() < until) {
      signal?.throwIfAborted();
      const isWhole = await this.heal().catch((error: unknown) => {
        reason = error;
        return false;
      });
      if (isWhole) return;
      await delay(PROBE_EVERY_MS, undefined, signal && { signal });
    }
    const why = reason instanceof Error ? ` ${reason.message}` : '';
    throw new Error(`The group did not form within ${FORM_DEADLINE_MS / 1000} s.${why}`, { cause: reason });
  }

  /** Takes servers that were restarted into the group again, until told to stop. */
  async keepTogether(signal: AbortSignal): Promise<void> {
    let last = '';
    while (!signal.aborted) {
      await this.heal().catch((error: unknown) => {
        // Once for as long as it lasts.
        if (String(error) !== last) this.log(String(error));
        last = String(error);
      });
      await delay(PROBE_EVERY_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /**
   * The server that takes writes, by its own account and as far as it hears most others; undefined
   * while there is none.
   */
  async primary(): Promise<GroupServer | undefined> {
    return primaryOf(await this.probe());
  }

  /**
   * Probes all servers once, and acts on the result. Servers that are out join. If no group is
   * left, it begins anew once all servers answer. Returns whether all are in it and one takes
   * writes: see {@link whole}.
   */
  async heal(): Promise<boolean> {
    const found = await this.probe();
    this.tellPrimary(primaryOf(found));
    const out = found.filter(({ report }) => report.state === 'OFFLINE' || report.state === 'ERROR');
    const member = found.find(({ report }) => report.state === 'ONLINE' && report.hasMajority);
    if (member !== undefined) {
      // One that was restarted at once is still a member, a silent one. To knock meanwhile would
      // be a sign of life, and put off its exclusion and, was it the primary, the next one's
      // election.
      const excluded = out.filter(({ report }) => !member.report.members.includes(report.uuid));
      await Promise.all(excluded.map(({ server }) => this.join(server)));
    } else if (out.length === this.servers.length) {
      const first = await mostAdvanced(out);
      this.log(`Starting the group from ${first.name} …`);
      await first.bootstrap();
    }
    return this.isWhole(found);
  }

  /** Whether all servers are in the group, and one of them takes writes. */
  async whole(): Promise<boolean> {
    return this.isWhole(await this.probe());
  }

  /** Each has to say so of all: one that just woke still believes what it knew before. */
  private isWhole(found: readonly Found[]): boolean {
    const { length } = this.servers;
    const agree = found.filter(({ report }) => report.state === 'ONLINE' && report.online === length);
    return agree.length === length && agree.some(({ report }) => report.isPrimary && !report.readOnly);
  }

  /** The servers that answer. */
  private async probe(): Promise<Found[]> {
    const reports = await Promise.all(this.servers.map((server) => server.probe().catch(() => undefined)));
    return this.servers.flatMap((server, index) => {
      const report = reports[index];
      return report === undefined ? [] : [{ server, report }];
    });
  }

  private async join(server: GroupServer): Promise<void> {
    try {
      await server.join();
      this.log(`${server.name} has joined the group.`);
    } catch (error) {
      // Until the group has excluded what it was before, for example; the next probe tries again.
      this.log(`${server.name} could not join the group yet: ${(error as Error).message}`);
    }
  }

  private tellPrimary(primary: GroupServer | undefined): void {
    if (primary === undefined || primary === this.lastPrimary) return;
    this.lastPrimary = primary;
    this.log(`The primary is ${primary.name}.`);
  }
}

function primaryOf(found: readonly Found[]): GroupServer | undefined {
  return found.find(({ report }) => report.isPrimary && report.hasMajority)?.server;
}

/**
 * The server that has every transaction of all servers. Among several, every keeper picks the same
 * one, in whatever order it knows the servers. Two keepers of one group must not start two groups.
 */
async function mostAdvanced(found: readonly Found[]): Promise<GroupServer> {
  for (const { server, report } of found.toSorted((a, b) => (a.report.uuid < b.report.uuid ? -1 : 1))) {
    const others = await Promise.all(
      found.map((other) => server.isSubset(other.report.transactions, report.transactions)),
    );
    if (others.every(Boolean)) return server;
  }
  throw new Error(
    'Each server has transactions that another lacks, so the group cannot be started without losing some: compare @@GLOBAL.gtid_executed on each.',
  );
}

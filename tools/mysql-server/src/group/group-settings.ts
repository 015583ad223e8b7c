import type { GroupFile } from './group-file.js';

/**
 * A member that is silent for five seconds, which cannot be changed, is excluded at once, and was
 * it the primary, another is elected. Whoever is to be given longer is given up to 15 s more than
 * that: suspects are only looked at so often.
 */
const EXPEL_SECONDS = 0;
/**
 * A primary that has not heard most of the others for those five seconds and this one more becomes
 * read-only.
 */
const CUT_OFF_SECONDS = 1;

/**
 * What makes a server a member of a group, on top of an embedded server's options.
 * docs/high-availability.md says what each is for.
 */
export function memberArguments({ name, members }: GroupFile, index: number): string[] {
  const addresses = members.map(({ groupPort }) => `127.0.0.1:${groupPort}`);
  return [
    `--server-id=${index + 1}`,
    '--report-host=127.0.0.1',
    '--relay-log=relaylog',
    '--gtid-mode=ON',
    '--enforce-gtid-consistency=ON',
    // A member that was away gets what it missed from the others' binlogs.
    '--binlog-expire-logs-seconds=86400',
    // Also before it has joined, or when nobody makes it join, it takes no writes.
    '--super-read-only=ON',

    '--plugin-load-add=group_replication.so',
    // What the binlogs no longer have comes as a copy of the whole.
    '--plugin-load-add=mysql_clone.so',
    `--group-replication-group-name=${name}`,
    `--group-replication-local-address=${addresses[index]}`,
    `--group-replication-group-seeds=${addresses.join(',')}`,
    // A group that stopped as a whole must be started from its most advanced member, which one
    // member alone cannot know.
    '--group-replication-start-on-boot=OFF',
    '--group-replication-single-primary-mode=ON',
    '--group-replication-consistency=BEFORE_ON_PRIMARY_FAILOVER',
    '--group-replication-exit-state-action=READ_ONLY',
    `--group-replication-unreachable-majority-timeout=${CUT_OFF_SECONDS}`,
    `--group-replication-member-expel-timeout=${EXPEL_SECONDS}`,
    '--group-replication-autorejoin-tries=3',
    '--group-replication-recovery-get-public-key=ON',
    // Of messages for members that were away for moments; 1 GiB for each member is much on one
    // machine.
    '--group-replication-message-cache-size=134217728',
  ];
}

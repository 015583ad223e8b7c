import type { GroupFile } from './group-file.js';

/**
 * The group suspects a member after five seconds of silence, a time that cannot be changed. It
 * then excludes the member at once, and elects another primary if needed. A longer time would come
 * out up to 15 s longer, because the group examines suspects only that often.
 */
const EXPEL_SECONDS = 0;
/**
 * A primary that has not heard most of the others for those five seconds and this one more becomes
 * read-only.
 */
const CUT_OFF_SECONDS = 1;

/**
 * The options that make a server a member of a group, beside those of an embedded server.
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
    // If the binlogs no longer hold a transaction, the member gets a copy of the whole data.
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
    // Messages for members that were away for moments. The default of 1 GiB per member is much on
    // one machine.
    '--group-replication-message-cache-size=134217728',
  ];
}

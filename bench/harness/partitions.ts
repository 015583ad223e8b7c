import { SessionClock } from '../../test/support/clock.js';
import { Database, openDataSource, PartitionRepository } from '@rowmq/store';

const WIDTH_MINUTES = 60;
const AHEAD_MINUTES = 3 * 1440;

/**
 * Makes the partitions of the message table that the reaper would have made.
 * @param from ms since 1970; default: now
 */
export async function makePartitions(databaseUrl: string, from = Date.now()): Promise<void> {
  const dataSource = await openDataSource({ url: databaseUrl, poolSize: 2 });
  try {
    new SessionClock(() => from).drive(dataSource);
    const partitions = new PartitionRepository(new Database(dataSource, 60_000));
    await partitions.createMissing({ widthMinutes: WIDTH_MINUTES, advanceMinutes: AHEAD_MINUTES });
  } finally {
    await dataSource.destroy();
  }
}

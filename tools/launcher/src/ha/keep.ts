import { DATABASE_SETTINGS, databaseHosts, databaseTls, readSettings } from '@rowmq/runtime';
import { GroupCare, GroupServer } from '@rowmq/mysql-server';
import { runUntilStopped } from '../until-stopped.js';

// keep.js [form]: forms the group of the servers that ROWMQ_DATABASE_URL names, whose user must be one who may do everything; without `form`, keeps them together from then on.
const log = (line: string): void => console.log(line);

await runUntilStopped(
  () => ({
    run: async (stopping) => {
      const settings = readSettings(DATABASE_SETTINGS, process.env);
      const tls = databaseTls(settings);
      const servers = databaseHosts(settings.ROWMQ_DATABASE_URL).map(
        (single) => new GroupServer(new URL(single).host, single, tls),
      );
      const care = new GroupCare(servers, log);
      if (process.argv[2] === 'form') await care.form(stopping);
      else await care.keepTogether(stopping);
    },
    kill: async () => undefined,
  }),
  'ha:keep',
  log,
);

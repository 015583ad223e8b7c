import { DATABASE_SETTINGS, databaseHosts, databaseTls, onStopRequest, readSettings, reason } from '@rowmq/runtime';
import { GroupCare } from './group/group-care.js';
import { GroupServer } from './group/group-server.js';

// keep-group.js [form]: `form` makes one group of the servers that ROWMQ_DATABASE_URL names.
// Without it, the program runs on and takes a server that was restarted into the group again.
// The URL's user needs every right on the servers.

const stopping = new AbortController();
onStopRequest(
  (signal) => {
    console.log(`${signal}: stopping in order. A second signal stops at once.`);
    stopping.abort();
  },
  () => process.exit(130),
);

try {
  const settings = readSettings(DATABASE_SETTINGS, process.env);
  const tls = databaseTls(settings);
  const servers = databaseHosts(settings.ROWMQ_DATABASE_URL).map(
    (single) => new GroupServer(new URL(single).host, single, tls),
  );
  const care = new GroupCare(servers, (line) => console.log(line));
  if (process.argv[2] === 'form') await care.form(stopping.signal);
  else await care.keepTogether(stopping.signal);
  process.exit(0);
} catch (error) {
  console.error(reason(error));
  process.exit(1);
}

// node relay.mjs FOLDER OWN SQL_PORT,… GROUP_PORT,…: runs in the network namespace of one database
// server, which has nothing but its own loopback, and is its only way in and out. The others are
// reached at the ports that they have in their own namespaces, by sockets in FOLDER, which
// namespaces do not separate. While FOLDER/cut-N is there, nothing gets through between server N
// and the other servers, in neither direction; whoever waits for an answer waits.
// FOLDER/held-N-OWN says that it is so here.
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';

const CHECK_MS = 50;
const [folder, ownText, sqlPorts, groupPorts] = process.argv.slice(2);
const own = Number(ownText);
const ports = { sql: sqlPorts.split(',').map(Number), group: groupPorts.split(',').map(Number) };
const server = process.ppid;

/** Pairs of sockets between this server and another. */
const pairs = new Set();

function relay(from, to, other) {
  const pair = { from, to, other, isHeld: false };
  if (other !== undefined) pairs.add(pair);
  for (const [one, far] of [
    [from, to],
    [to, from],
  ]) {
    one.setNoDelay?.(true);
    one.on('error', () => undefined);
    one.on('close', () => {
      pairs.delete(pair);
      far.destroy();
    });
  }
  if (other !== undefined && isCut(other)) hold(pair);
  else letThrough(pair);
}

function letThrough({ from, to }) {
  from.pipe(to);
  to.pipe(from);
}

function hold(pair) {
  pair.isHeld = true;
  for (const socket of [pair.from, pair.to]) socket.unpipe().pause();
}

const isOff = (index) => existsSync(join(folder, `cut-${index}`));
const isCut = (other) => isOff(own) || isOff(other);

for (const index of ports.sql.keys()) {
  for (const kind of ['sql', 'group']) {
    const port = ports[kind][index];
    if (index !== own) {
      createServer((socket) => relay(socket, connect(join(folder, `${kind}-${index}`)), index)).listen(
        port,
        '127.0.0.1',
      );
      continue;
    }
    for (const name of kind === 'sql' ? [`sql-${own}`, `outside-${own}`] : [`group-${own}`]) {
      rmSync(join(folder, name), { force: true });
      createServer((socket) => relay(socket, connect(port, '127.0.0.1'))).listen(join(folder, name));
    }
  }
}

/** Holds the pairs of cut members, new pairs too, and reports it in a file for each member. */
function holdCut() {
  const cut = [...ports.sql.keys()].filter((index) => isOff(index));
  for (const pair of pairs) {
    const isHeld = cut.includes(own) || cut.includes(pair.other);
    if (isHeld && !pair.isHeld) hold(pair);
    // Data in flight is lost, and both ends connect again.
    if (!isHeld && pair.isHeld) pair.from.destroy();
  }
  for (const index of cut) writeFileSync(join(folder, `held-${index}-${own}`), '');
}

setInterval(() => {
  // The server that this was started with is gone.
  if (process.ppid !== server) process.exit(0);
  holdCut();
}, CHECK_MS);

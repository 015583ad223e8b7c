import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/* Runs the shop and the mailer, each a process of its own, until Ctrl-C. */

const services = ['shop', 'mailer'].map((name): ChildProcess =>
  fork(fileURLToPath(new URL(`${name}.js`, import.meta.url))),
);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    for (const service of services) service.kill('SIGTERM');
  });
}
const codes = await Promise.all(
  services.map(async (service) => {
    const [code, signal] = (await once(service, 'exit')) as [number | null, NodeJS.Signals | null];
    // If one service ends, the other ends too.
    for (const other of services) other.kill('SIGTERM');
    // After a signal, Nest closes the application and then ends the process by the same signal.
    return signal === 'SIGTERM' || signal === 'SIGINT' ? 0 : (code ?? 1);
  }),
);
process.exitCode = Math.max(...codes);

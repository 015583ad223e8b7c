import { Launcher } from './launcher.js';
import { readLauncherConfig } from './launcher.config.js';

/** npm passes on the Ctrl-C that the terminal already delivered: two signals this close together are one request. */
const SAME_REQUEST_MS = 1_000;

const PARENT_POLL_MS = 250;

const log = (line: string): void => console.log(line);

try {
  const launcher = new Launcher(readLauncherConfig(process.env), process.env, log);
  let requestedAt: number | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      const now = performance.now();
      if (requestedAt === undefined) {
        requestedAt = now;
        log(`${signal}: stopping in order. Once more to stop at once.`);
        launcher.requestStop();
      } else if (now - requestedAt >= SAME_REQUEST_MS) {
        log(`${signal} again: killing.`);
        void launcher.kill().finally(() => process.exit(130));
      }
    });
  }
  stopWithNpm(launcher);
  await launcher.run();
  process.exit(0);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}

/** A killed npm cannot pass anything on: run by npm, the launcher stops when npm is gone, as its user believes it to be. */
function stopWithNpm(launcher: Launcher): void {
  if (process.env['npm_lifecycle_event'] !== 'start') return;
  const npm = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === npm) return;
    clearInterval(timer);
    log('npm is gone: stopping in order.');
    launcher.requestStop();
  }, PARENT_POLL_MS);
  timer.unref();
}

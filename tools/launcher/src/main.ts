import { Launcher } from './launcher.js';
import { readLauncherConfig } from './launcher.config.js';
import { runUntilStopped } from './until-stopped.js';

const log = (line: string): void => console.log(line);

await runUntilStopped(() => new Launcher(readLauncherConfig(process.env), process.env, log), 'start', log);

import { readHaConfig } from '../launcher.config.js';
import { runUntilStopped } from '../until-stopped.js';
import { HaLauncher } from './ha-launcher.js';

const log = (line: string): void => console.log(line);

await runUntilStopped(() => new HaLauncher(readHaConfig(process.env), process.env, log), 'ha:up', log);

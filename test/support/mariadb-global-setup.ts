import type { TestProject } from 'vitest/node';
import { startTestServer } from './servers-global-setup.js';

/** Runs MariaDB for the tests of the project `mariadb`. */
export default (project: TestProject): Promise<() => Promise<void>> => startTestServer('mariadb', project);

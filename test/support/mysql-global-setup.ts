import type { TestProject } from 'vitest/node';
import { startTestServer } from './servers-global-setup.js';

/** Runs MySQL for the tests of the project `mysql`. */
export default (project: TestProject): Promise<() => Promise<void>> => startTestServer('mysql', project);

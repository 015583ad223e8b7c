import type { JSX } from 'preact';
import { JobList } from '../parts/jobs.js';

/** The jobs of all queues. */
export function JobsPage(): JSX.Element {
  return (
    <>
      <h1>Jobs</h1>
      <JobList />
    </>
  );
}

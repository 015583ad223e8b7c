export { LoadGenerator, type Pace, type Turn } from './load-generator.js';
export { Tally } from './tally.js';

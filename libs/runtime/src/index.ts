export * from './run.js';
export * from './settings.js';

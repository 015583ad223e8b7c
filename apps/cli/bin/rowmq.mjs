#!/usr/bin/env node
// The repository has the compiler's output. The published package has `bundle` instead, which
// carries the parts of private packages that the commands need.
import { existsSync } from 'node:fs';

const built = new URL('../dist/main.js', import.meta.url);
await import(existsSync(built) ? built.href : new URL('../bundle/main.js', import.meta.url).href);

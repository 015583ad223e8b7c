import { existsSync } from 'node:fs';

/** The path of a shell of Debian, or undefined. */
export function findShell(name: 'zsh' | 'fish'): string | undefined {
  const path = `/usr/bin/${name}`;
  if (existsSync(path)) return path;
  console.warn(`NOT TESTED: completion in ${name}. There is no ${path}. apt-get install ${name}`);
  return undefined;
}

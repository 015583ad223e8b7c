import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { replaceFile } from '../data-folder.js';
import { freePort, isPortFree } from '../ports.js';

/** Three: the least of which one may be lost. */
export const MEMBERS = 3;

const portNumber = z.int().min(1).max(65_535);
const schema = z.object({
  name: z.uuid(),
  password: z.string().min(16),
  members: z.array(z.object({ port: portNumber, groupPort: portNumber })).length(MEMBERS),
});

/**
 * The settings that a group's members share, and the ports of each. One private file keeps them,
 * because they must stay the same.
 */
export type GroupFile = z.infer<typeof schema>;

/**
 * Reads the file of a folder, or makes it. Ports that are taken by now are replaced: call it while
 * no member runs.
 */
export async function loadGroupFile(folder: string): Promise<GroupFile> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, 'group.json');
  const text = await readFile(path, 'utf8').catch(() => undefined);
  const known = text === undefined ? undefined : schema.parse(JSON.parse(text));
  const ports = await choosePorts(
    known?.members.flatMap((member) => [member.port, member.groupPort]) ??
      Array.from({ length: 2 * MEMBERS }, () => undefined),
  );
  const file = {
    name: known?.name ?? randomUUID(),
    // A replication user's may have 32 characters at most.
    password: known?.password ?? randomBytes(15).toString('hex'),
    members: Array.from({ length: MEMBERS }, (_, index) => ({
      port: ports[2 * index] as number,
      groupPort: ports[2 * index + 1] as number,
    })),
  };
  await replaceFile(path, JSON.stringify(file));
  return file;
}

/** Each wanted port if it is free, else another. */
async function choosePorts(wanted: readonly (number | undefined)[]): Promise<number[]> {
  const chosen: number[] = [];
  for (const wish of wanted) {
    let found = wish !== undefined && (await isPortFree(wish)) ? wish : await freePort();
    while (chosen.includes(found)) found = await freePort();
    chosen.push(found);
  }
  return chosen;
}

import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Peer, PeerUnavailableError } from './peer.js';
import { PeerSession } from './session.js';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));

/**
 * Starts a peer's server and client. Installs a missing server if this process may; otherwise
 * throws `PeerUnavailableError`.
 */
export async function openSession(peer: Peer, signal?: AbortSignal): Promise<PeerSession> {
  try {
    return await PeerSession.open(peer, signal);
  } catch (error) {
    if (!(error instanceof PeerUnavailableError) || process.getuid?.() !== 0) throw error;
    console.error(`Installing ${error.debianPackage} …`);
    const { status } = spawnSync(join(FOLDER, 'install.sh'), [error.debianPackage], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (status !== 0) throw error;
    return PeerSession.open(peer, signal);
  }
}

/**
 * Installs the peers' client libraries when they are first needed. The project does not depend on
 * them.
 */
export function installClients(): void {
  const wanted = packageVersions(join(FOLDER, 'package-lock.json'));
  const installed = packageVersions(join(FOLDER, 'node_modules', '.package-lock.json'));
  if (wanted.every((one) => installed.includes(one))) return;
  console.error("Installing the peers' client libraries …");
  execFileSync('npm', ['ci', '--prefix', FOLDER, '--no-audit', '--no-fund', '--loglevel=error'], { stdio: 'inherit' });
}

function packageVersions(lockFile: string): string[] {
  try {
    const { packages } = JSON.parse(readFileSync(lockFile, 'utf8')) as {
      packages: Record<string, { version?: string; optional?: boolean }>;
    };
    // npm leaves out optional packages that do not fit the platform. The empty path is the package
    // itself, which is not installed.
    return Object.entries(packages).flatMap(([path, { version, optional }]) =>
      path === '' || version === undefined || optional === true ? [] : [`${path} ${version}`],
    );
  } catch {
    return [];
  }
}

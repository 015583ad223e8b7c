import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const NEW_KEY = ['-newkey', 'rsa:2048', '-nodes', '-sha256'];

/** Paths of a server's certificate and key, and of its authority's certificate. */
export interface Certificates {
  ca: string;
  cert: string;
  key: string;
}

/**
 * Creates a certificate for a host, and an authority that signs it, in a folder. Both are for this
 * test only and valid for a day. Needs `openssl`.
 */
export async function makeCertificates(folder: string, host: string): Promise<Certificates> {
  const path = (name: string): string => join(folder, `${host}-${name}.pem`);
  const [ca, caKey, cert, key, request, extensions] = ['ca', 'ca-key', 'cert', 'key', 'request', 'extensions'].map(
    (name) => path(name),
  ) as [string, string, string, string, string, string];
  const openssl = async (...args: string[]): Promise<unknown> => run('openssl', args, { cwd: folder });
  await writeFile(extensions, `subjectAltName=DNS:${host}\n`);
  await openssl(
    'req',
    '-x509',
    ...NEW_KEY,
    '-days',
    '1',
    '-subj',
    `/CN=signer of ${host}`,
    '-keyout',
    caKey,
    '-out',
    ca,
  );
  await openssl('req', ...NEW_KEY, '-subj', `/CN=${host}`, '-keyout', key, '-out', request);
  const signer = ['-CA', ca, '-CAkey', caKey, '-CAcreateserial'];
  await openssl('x509', '-req', '-days', '1', '-in', request, ...signer, '-extfile', extensions, '-out', cert);
  return { ca, cert, key };
}

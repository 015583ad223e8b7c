import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { z } from 'zod';
import { databaseHosts, databaseParts, databaseUrl } from './database-url.js';
import { reason } from './reason.js';
import { SettingsError } from './settings.js';

/** The encryption of connections to the database, as options of Node's `tls` and of mysql2. */
export interface DatabaseTls {
  /** Whether a trusted authority must have signed the server's certificate. */
  rejectUnauthorized: boolean;
  /** Whether the certificate must also name the server's host. */
  verifyIdentity: boolean;
  /** Trusted certificates in PEM form; undefined: the authorities that Node trusts. */
  ca?: string;
}

const MODES = ['off', 'require', 'verify-ca', 'verify'] as const;

/** The database settings of every process. {@link databaseTls} combines the settings for TLS. */
export const DATABASE_SETTINGS = {
  ROWMQ_DATABASE_URL: databaseUrl,
  /** Whether to run on a server version that no test of RowMQ ran on. */
  ROWMQ_DATABASE_UNTESTED: z.enum(['refuse', 'allow'], { error: 'must be refuse or allow' }).default('refuse'),
  ROWMQ_DATABASE_TLS: z.enum(MODES, { error: `must be one of ${MODES.join(', ')}` }).default('off'),
  ROWMQ_DATABASE_TLS_CA: z
    .string()
    .transform((path, context) => {
      try {
        return readCertificates(path);
      } catch (error) {
        context.addIssue({ code: 'custom', message: `must be a file of certificates in PEM form: ${reason(error)}` });
        return z.NEVER;
      }
    })
    .optional(),
};

/**
 * The TLS options of {@link DATABASE_SETTINGS}; undefined: no encryption. Throws SettingsError if
 * they contradict each other.
 */
export function databaseTls(settings: {
  ROWMQ_DATABASE_URL?: string | undefined;
  ROWMQ_DATABASE_TLS: (typeof MODES)[number];
  ROWMQ_DATABASE_TLS_CA?: string | undefined;
}): DatabaseTls | undefined {
  const { ROWMQ_DATABASE_URL: url, ROWMQ_DATABASE_TLS: mode, ROWMQ_DATABASE_TLS_CA: ca } = settings;
  const verifies = mode === 'verify' || mode === 'verify-ca';
  if (ca !== undefined && !verifies) {
    throw new SettingsError(
      `ROWMQ_DATABASE_TLS_CA is set, but with ROWMQ_DATABASE_TLS=${mode} nobody checks the server's certificate. Set ROWMQ_DATABASE_TLS to verify or verify-ca.`,
    );
  }
  const hosts = url === undefined ? [] : databaseHosts(url).map((single) => databaseParts(single).host);
  // mysql2 would compare the certificate with `localhost` instead.
  const address = hosts.find((host) => isIP(host) !== 0);
  if (mode === 'verify' && address !== undefined) {
    throw new SettingsError(
      `ROWMQ_DATABASE_TLS=verify compares names, and ${address} in ROWMQ_DATABASE_URL is an address. Use the name that the server's certificate has, or verify-ca.`,
    );
  }
  if (mode === 'off') return undefined;
  return { rejectUnauthorized: verifies, verifyIdentity: mode === 'verify', ...(ca !== undefined && { ca }) };
}

/** Throws Error if the file cannot be read, has no certificate, or has an invalid one. */
function readCertificates(path: string): string {
  const text = readFileSync(path, 'utf8');
  const certificates = text.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g);
  if (certificates === null) throw new Error(`${path} has no certificate`);
  // Node itself would skip a certificate that it cannot read.
  return certificates.map((certificate) => new X509Certificate(certificate).toString()).join('');
}

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { z } from 'zod';
import { databaseHosts, databaseParts, databaseUrl } from './database-url.js';
import { reason } from './reason.js';
import { SettingsError } from './settings.js';

/** How connections to the database are encrypted, in the words of Node's `tls` and of mysql2. */
export interface DatabaseTls {
  /** Whether the server's certificate must be signed by somebody who is trusted. */
  rejectUnauthorized: boolean;
  /** Whether it must name the server's host as well. */
  verifyIdentity: boolean;
  /** Those who are trusted, in PEM form; undefined: those whom Node trusts. */
  ca?: string;
}

const MODES = ['off', 'require', 'verify-ca', 'verify'] as const;

/** Where the database is and how it is reached: the settings of every process that needs one. {@link databaseTls} says what those for TLS mean together. */
export const DATABASE_SETTINGS = {
  ROWMQ_DATABASE_URL: databaseUrl,
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

/** What {@link DATABASE_SETTINGS} say of TLS; undefined: connections are not encrypted. Throws SettingsError when they do not go together. */
export function databaseTls(settings: {
  ROWMQ_DATABASE_URL?: string | undefined;
  ROWMQ_DATABASE_TLS: (typeof MODES)[number];
  ROWMQ_DATABASE_TLS_CA?: string | undefined;
}): DatabaseTls | undefined {
  const { ROWMQ_DATABASE_URL: url, ROWMQ_DATABASE_TLS: mode, ROWMQ_DATABASE_TLS_CA: ca } = settings;
  const verifies = mode === 'verify' || mode === 'verify-ca';
  if (ca !== undefined && !verifies) {
    throw new SettingsError(
      `ROWMQ_DATABASE_TLS_CA is set, but with ROWMQ_DATABASE_TLS=${mode} nobody looks at the server's certificate. Set ROWMQ_DATABASE_TLS to verify or verify-ca.`,
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

/** Throws Error for a file that cannot be read, that has no certificate, or one that is none. */
function readCertificates(path: string): string {
  const text = readFileSync(path, 'utf8');
  const certificates = text.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g);
  if (certificates === null) throw new Error(`${path} has none`);
  // Node itself would pass over what it cannot read.
  return certificates.map((certificate) => new X509Certificate(certificate).toString()).join('');
}

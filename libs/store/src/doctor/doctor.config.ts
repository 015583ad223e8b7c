import { DATABASE_SETTINGS, databaseTls, readSettings, wholeNumber } from '@rowmq/runtime';
import type { DatabaseSettings } from '../database/data-source.js';

/** The database to examine, as brokers and reapers get it. */
export interface DoctorConfig {
  database: DatabaseSettings;
  /** Connections of each broker. */
  poolSize: number;
  /** A transaction that is open for so long is worth a warning. */
  longSeconds: number;
}

/** Undefined without a database in the environment. Throws SettingsError for a wrong setting. */
export function readDoctorConfig(env: NodeJS.ProcessEnv, longSeconds: number): DoctorConfig | undefined {
  if (!env['ROWMQ_DATABASE_URL'] && !env['ROWMQ_DATABASE_URL_FILE']) return undefined;
  const settings = readSettings(
    { ...DATABASE_SETTINGS, ROWMQ_DATABASE_POOL_SIZE: wholeNumber(1, 1000).default(16) },
    env,
  );
  return {
    database: {
      url: settings.ROWMQ_DATABASE_URL,
      tls: databaseTls(settings),
      untestedAllowed: settings.ROWMQ_DATABASE_UNTESTED === 'allow',
      poolSize: 2,
    },
    poolSize: settings.ROWMQ_DATABASE_POOL_SIZE,
    longSeconds,
  };
}

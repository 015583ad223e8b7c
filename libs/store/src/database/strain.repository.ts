import { serverKind } from './boot-checks.js';
import type { Database } from './database.js';
import { driverError, isDenied } from './database-errors.js';

/** The load on the whole server, also from others than RowMQ. Null: nobody knows. */
export interface Strain {
  /** Transactions whose old row versions the server has not purged yet. */
  historyLength: number | null;
  /** Sessions that wait for the lock of a row. */
  lockWaits: number | null;
}

const LOCK_WAITS = 'Innodb_row_lock_current_waits';
const HISTORY = 'Innodb_history_list_length';
/** A counter that fell below zero by a fault of the server shows as about 2 to the power of 64. */
const IMPOSSIBLE = 2 ** 60;

/** Reads figures of InnoDB that tell how much the server has to bear. */
export class StrainRepository {
  private kind: 'MySQL' | 'MariaDB' | undefined;
  private denied: string | undefined;

  constructor(private readonly database: Database) {}

  /** Why the user cannot see the history list; undefined: it can, or nobody has tried. */
  get whyBlind(): string | undefined {
    return this.denied;
  }

  /** Every user may see these figures, except the history list of MySQL. */
  async read(): Promise<Strain> {
    this.kind ??= await serverKind(this.database);
    const rows = await this.database.read<{ name: string; value: string }>(
      `SHOW GLOBAL STATUS WHERE Variable_name IN ('${LOCK_WAITS}', '${HISTORY}')`,
    );
    // The names of the columns differ between versions in their case.
    const values = new Map(rows.map((row) => Object.values(row) as [string, string]));
    return {
      lockWaits: toNumber(values.get(LOCK_WAITS)),
      historyLength: this.kind === 'MariaDB' ? toNumber(values.get(HISTORY)) : await this.mysqlHistory(),
    };
  }

  /** MySQL shows it to users with PROCESS only. */
  private async mysqlHistory(): Promise<number | null> {
    if (this.denied !== undefined) return null;
    try {
      const [row] = await this.database.read<{ length: number }>(
        `SELECT COUNT AS length FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'`,
      );
      return toNumber(row?.length);
    } catch (error) {
      if (!isDenied(error)) throw error;
      this.denied = driverError(error).message ?? 'access denied';
      return null;
    }
  }
}

function toNumber(value: string | number | undefined): number | null {
  const number = value === undefined ? Number.NaN : Number(value);
  return Number.isFinite(number) && number >= 0 && number < IMPOSSIBLE ? number : null;
}

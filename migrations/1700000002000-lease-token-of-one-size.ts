import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Makes `delivery.lease_token` zeros where there was NULL. A claim that turned NULL into eight bytes made the row grow, on pages that enqueues had filled: one in a few had to be reorganized or split, 6 % of the
 * server's time on MySQL. Copies the table: seconds per million deliveries, during which nothing can be enqueued or acked; brokers of the version before must be stopped.
 */
export class LeaseTokenOfOneSize1700000002000 implements MigrationInterface {
  readonly name = 'LeaseTokenOfOneSize1700000002000';

  async up(runner: QueryRunner): Promise<void> {
    // Not strict: then NULL becomes the type's own default, which is zeros.
    const [before] = (await runner.query('SELECT @@SESSION.sql_mode AS mode')) as [{ mode: string }];
    await runner.query(`SET SESSION sql_mode = ''`);
    try {
      await runner.query(`
        ALTER TABLE delivery
          MODIFY lease_token BINARY(8) NOT NULL DEFAULT 0x0000000000000000
            COMMENT 'the fence: fresh random bytes of the last claim; zeros when there was none, or it was given back',
          ALGORITHM = COPY, LOCK = SHARED`);
    } finally {
      // If the connection is gone, so is its mode; and what went wrong is what the reader wants to know.
      await runner.query('SET SESSION sql_mode = ?', [before.mode]).catch(() => undefined);
    }
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('ALTER TABLE delivery MODIFY lease_token BINARY(8) NULL');
    await runner.query('UPDATE delivery SET lease_token = NULL WHERE lease_token = 0x0000000000000000');
  }
}

import type { Missed } from '@rowmq/contract';
import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A schedule: when it sends which message to which queue or topic. Times are ms since 1970. */
@Entity('schedule')
export class ScheduleEntity {
  @PrimaryColumn({ type: 'varchar', length: 80 })
  name!: string;

  @Column({ type: 'varchar', length: 200, nullable: true })
  cron!: string | null;

  @Column({ name: 'every_seconds', type: 'int', unsigned: true, nullable: true })
  everySeconds!: number | null;

  @Column({ name: 'time_zone', type: 'varchar', length: 64, nullable: true })
  timeZone!: string | null;

  @Column({ type: 'varchar', length: 80, nullable: true })
  queue!: string | null;

  /** In place of a queue. */
  @Column({ type: 'varchar', length: 80, nullable: true })
  topic!: string | null;

  /** The message as JSON, in the form of a request. */
  @Column({ type: 'mediumtext' })
  message!: string;

  @Column({ type: 'boolean' })
  enabled!: boolean;

  @Column({ type: 'varchar', length: 4 })
  missed!: Missed;

  /** The first tick that nobody has enqueued. Null: it is not enabled. */
  @Column({ name: 'next_at', type: 'bigint', unsigned: true, nullable: true })
  nextAt!: number | null;

  /** When a reaper looks at it again: at the next tick, or some seconds after a failure. */
  @Column({ name: 'due_at', type: 'bigint', unsigned: true, nullable: true })
  dueAt!: number | null;

  @Column({ name: 'last_tick_at', type: 'bigint', unsigned: true, nullable: true })
  lastTickAt!: number | null;

  @Column({ name: 'last_message_id', type: 'binary', length: 16, nullable: true })
  lastMessageId!: Buffer | null;

  @Column({ name: 'last_failure', type: 'varchar', length: 1000, nullable: true })
  lastFailure!: string | null;

  @Column({ name: 'created_at', type: 'bigint', unsigned: true })
  createdAt!: number;
}

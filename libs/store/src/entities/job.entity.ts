import type { JobKind, JobState } from '@rowmq/contract';
import { Column, Entity, PrimaryColumn } from 'typeorm';

/**
 * A job: what an operator asked for, how far it is, and who carries it out. Times are ms since 1970
 * on the database's clock. The migration says what each column means.
 */
@Entity('job')
export class JobEntity {
  @PrimaryColumn({ type: 'binary', length: 16 })
  id!: Buffer;

  @Column({ type: 'varchar', length: 8 })
  kind!: JobKind;

  @Column({ name: 'queue_id', type: 'int', unsigned: true })
  queueId!: number;

  @Column({ type: 'varchar', length: 80 })
  queue!: string;

  @Column({ name: 'target_queue_id', type: 'int', unsigned: true, nullable: true })
  targetQueueId!: number | null;

  @Column({ name: 'target_queue', type: 'varchar', length: 80, nullable: true })
  targetQueue!: string | null;

  @Column({ type: 'text' })
  filter!: string;

  @Column({ type: 'text' })
  patterns!: string;

  @Column({ name: 'messages_per_second', type: 'int', unsigned: true, nullable: true })
  messagesPerSecond!: number | null;

  @Column({ name: 'max_messages', type: 'int', unsigned: true, nullable: true })
  maxMessages!: number | null;

  @Column({ type: 'bigint', unsigned: true, nullable: true })
  total!: number | null;

  @Column({ type: 'bigint', unsigned: true })
  examined!: number;

  @Column({ type: 'bigint', unsigned: true })
  done!: number;

  @Column({ type: 'bigint', unsigned: true })
  skipped!: number;

  @Column({ type: 'varchar', length: 9 })
  state!: JobState;

  @Column({ type: 'varchar', length: 1000, nullable: true })
  error!: string | null;

  @Column({ name: 'last_pack_id', type: 'binary', length: 16 })
  lastPackId!: Buffer;

  @Column({ name: 'after_pack_id', type: 'binary', length: 16 })
  afterPackId!: Buffer;

  @Column({ type: 'tinyint', unsigned: true })
  pass!: number;

  @Column({ name: 'left_over', type: 'bigint', unsigned: true })
  leftOver!: number;

  @Column({ type: 'int', unsigned: true })
  step!: number;

  @Column({ type: 'tinyint', unsigned: true })
  failures!: number;

  @Column({ type: 'varchar', length: 120, nullable: true })
  worker!: string | null;

  @Column({ name: 'worker_until', type: 'bigint', unsigned: true })
  workerUntil!: number;

  @Column({ name: 'created_at', type: 'bigint', unsigned: true })
  createdAt!: number;

  @Column({ name: 'updated_at', type: 'bigint', unsigned: true })
  updatedAt!: number;

  @Column({ name: 'finished_at', type: 'bigint', unsigned: true, nullable: true })
  finishedAt!: number | null;
}

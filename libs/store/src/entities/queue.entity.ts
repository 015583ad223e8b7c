import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';

/** A queue's row. A deleted queue's `name` is null. `docs/protocol.md` explains the settings. */
@Entity('queue')
export class QueueEntity {
  @PrimaryGeneratedColumn({ type: 'int', unsigned: true })
  id!: number;

  @Column({ type: 'varchar', length: 80, nullable: true })
  name!: string | null;

  @Column({ name: 'lease_seconds', type: 'int', unsigned: true })
  leaseSeconds!: number;

  @Column({ name: 'message_ttl_seconds', type: 'int', unsigned: true })
  messageTtlSeconds!: number;

  @Column({ name: 'delay_seconds', type: 'int', unsigned: true })
  delaySeconds!: number;

  @Column({ name: 'max_receives', type: 'smallint', unsigned: true, nullable: true })
  maxReceives!: number | null;

  @Column({ name: 'dead_letter_queue_id', type: 'int', unsigned: true, nullable: true })
  deadLetterQueueId!: number | null;

  @Column({ name: 'dead_letter_expired', type: 'boolean' })
  deadLetterExpired!: boolean;

  @Column({ name: 'max_depth', type: 'int', unsigned: true, nullable: true })
  maxDepth!: number | null;

  @Column({ name: 'max_messages_per_second', type: 'int', unsigned: true, nullable: true })
  maxMessagesPerSecond!: number | null;

  @Column({ name: 'max_long_polls', type: 'int', unsigned: true, nullable: true })
  maxLongPolls!: number | null;

  @Column({ name: 'deduplication_seconds', type: 'int', unsigned: true })
  deduplicationSeconds!: number;

  /** Consumers get nothing. */
  @Column({ type: 'boolean' })
  paused!: boolean;

  /** Enqueues are refused. */
  @Column({ name: 'producers_paused', type: 'boolean' })
  producersPaused!: boolean;

  /** Never changes. */
  @Column({ type: 'varchar', length: 8, nullable: true })
  ordering!: 'group' | null;

  /** JSON: the attributes and tags that only SQS knows. */
  @Column({ type: 'mediumtext', nullable: true })
  sqs!: string | null;

  @Column({ name: 'created_at', type: 'bigint', unsigned: true })
  createdAt!: number;

  @Column({ name: 'changed_at', type: 'bigint', unsigned: true })
  changedAt!: number;

  /** Counts the changes of this row. */
  @Column({ type: 'int', unsigned: true })
  version!: number;
}

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

  @Column({ name: 'max_depth', type: 'int', unsigned: true, nullable: true })
  maxDepth!: number | null;

  @Column({ type: 'boolean' })
  paused!: boolean;

  @Column({ name: 'created_at', type: 'bigint', unsigned: true })
  createdAt!: number;

  /** Counts the changes of this row. */
  @Column({ type: 'int', unsigned: true })
  version!: number;
}

import { Column, Entity, PrimaryColumn, PrimaryGeneratedColumn } from 'typeorm';

/** A topic's row. `docs/protocol.md` explains topics. */
@Entity('topic')
export class TopicEntity {
  @PrimaryGeneratedColumn({ type: 'int', unsigned: true })
  id!: number;

  @Column({ type: 'varchar', length: 80 })
  name!: string;

  @Column({ name: 'deduplication_seconds', type: 'int', unsigned: true })
  deduplicationSeconds!: number;

  @Column({ name: 'created_at', type: 'bigint', unsigned: true })
  createdAt!: number;

  /** Counts the changes of it and its subscriptions. */
  @Column({ type: 'int', unsigned: true })
  version!: number;
}

/** A queue's subscription to a topic. */
@Entity('subscription')
export class SubscriptionEntity {
  @PrimaryColumn({ name: 'topic_id', type: 'int', unsigned: true })
  topicId!: number;

  @PrimaryColumn({ name: 'queue_id', type: 'int', unsigned: true })
  queueId!: number;

  /** JSON. Null: every message matches. */
  @Column({ type: 'text', nullable: true })
  filter!: string | null;

  @Column({ name: 'created_at', type: 'bigint', unsigned: true })
  createdAt!: number;
}

import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A message: immutable once stored. */
@Entity('message')
export class MessageEntity {
  /** UUIDv7, 16 bytes. */
  @PrimaryColumn({ type: 'binary', length: 16 })
  id!: Buffer;

  /** The queue it was enqueued in. */
  @Column({ name: 'queue_id', type: 'int', unsigned: true })
  queueId!: number;

  @Column({ type: 'varbinary', length: 4096 })
  body!: Buffer;

  /** A JSON object of strings, or null when there are none. */
  @Column({ type: 'varbinary', length: 1024, nullable: true })
  headers!: Buffer | null;

  @Column({ name: 'expires_at', type: 'bigint', unsigned: true })
  expiresAt!: number;
}

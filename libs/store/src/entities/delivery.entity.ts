import { Column, Entity, PrimaryColumn } from 'typeorm';

/** The obligation to hand one message to one consumer of one queue. Times: ms since 1970 on the database's clock. */
@Entity('delivery')
export class DeliveryEntity {
  @PrimaryColumn({ name: 'queue_id', type: 'int', unsigned: true })
  queueId!: number;

  @PrimaryColumn({ name: 'message_id', type: 'binary', length: 16 })
  messageId!: Buffer;

  /** 9 - priority. */
  @Column({ name: 'priority_rank', type: 'tinyint', unsigned: true })
  priorityRank!: number;

  /** From this instant it can be claimed: when it was enqueued, its delay ends or its lease runs out. */
  @Column({ name: 'available_at', type: 'bigint', unsigned: true })
  availableAt!: number;

  @Column({ name: 'expires_at', type: 'bigint', unsigned: true })
  expiresAt!: number;

  @Column({ name: 'receive_count', type: 'smallint', unsigned: true })
  receiveCount!: number;

  /** Of the last claim; zeros when it was never claimed or was given back. */
  @Column({ name: 'lease_token', type: 'binary', length: 8 })
  leaseToken!: Buffer;

  @Column({ name: 'nack_reason', type: 'varchar', length: 200, nullable: true })
  nackReason!: string | null;
}

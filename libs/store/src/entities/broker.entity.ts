import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A broker process that takes hints from the others. `docs/decisions/0015-peers.md` */
@Entity('broker')
export class BrokerEntity {
  @PrimaryColumn({ type: 'varchar', length: 36 })
  id!: string;

  @Column({ type: 'varchar', length: 300 })
  url!: string;

  @Column({ type: 'varchar', length: 43 })
  token!: string;

  /** Above 0: its batches are slow, and the reaper yields. */
  @Column({ type: 'tinyint', unsigned: true, default: 0 })
  pressure!: number;

  @Column({ name: 'heartbeat_at', type: 'bigint', unsigned: true })
  heartbeatAt!: number;
}

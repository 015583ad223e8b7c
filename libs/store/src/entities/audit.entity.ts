import type { ErrorCode } from '@rowmq/contract';
import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';

/** An action of an administrator, done or refused. */
@Entity('audit')
export class AuditEntity {
  @PrimaryGeneratedColumn({ type: 'bigint', unsigned: true })
  id!: number;

  @Column({ type: 'bigint', unsigned: true })
  at!: number;

  @Column({ type: 'varchar', length: 40 })
  action!: string;

  @Column({ type: 'varchar', length: 1000 })
  path!: string;

  @Column({ type: 'smallint', unsigned: true })
  status!: number;

  /** The code of the refusal. */
  @Column({ type: 'varchar', length: 40, nullable: true })
  problem!: ErrorCode | null;

  @Column({ name: 'key_name', type: 'varchar', length: 80, nullable: true })
  key!: string | null;

  @Column({ type: 'varchar', length: 64 })
  address!: string;

  @Column({ name: 'request_id', type: 'varchar', length: 64 })
  requestId!: string;

  /** JSON: each field that changed, with `from` and `to`. */
  @Column({ type: 'text', nullable: true })
  changes!: string | null;
}

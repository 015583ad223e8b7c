import { Column, Entity, PrimaryColumn, PrimaryGeneratedColumn } from 'typeorm';

/** The active reaper, and the end of its lease. */
@Entity('reaper_lease')
export class ReaperLeaseEntity {
  @PrimaryColumn({ type: 'varchar', length: 40 })
  name!: string;

  @Column({ type: 'varchar', length: 120, nullable: true })
  holder!: string | null;

  @Column({ name: 'expires_at', type: 'bigint', unsigned: true })
  expiresAt!: number;
}

/** One run of one duty. */
@Entity('reaper_run')
export class ReaperRunEntity {
  @PrimaryGeneratedColumn({ type: 'bigint', unsigned: true })
  id!: number;

  @Column({ type: 'varchar', length: 40 })
  duty!: string;

  @Column({ type: 'varchar', length: 120 })
  reaper!: string;

  @Column({ name: 'started_at', type: 'bigint', unsigned: true })
  startedAt!: number;

  @Column({ name: 'duration_ms', type: 'int', unsigned: true })
  durationMs!: number;

  @Column({ type: 'int', unsigned: true })
  count!: number;

  @Column({ type: 'varchar', length: 1000, nullable: true })
  error!: string | null;
}

import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A login to the dashboard. The cookie is not stored, only its SHA-256. */
@Entity('dashboard_session')
export class DashboardSessionEntity {
  @PrimaryColumn({ type: 'varchar', length: 64 })
  digest!: string;

  /** Null: the key of the settings. */
  @Column({ name: 'key_id', type: 'varchar', length: 16, nullable: true })
  keyId!: string | null;

  /** The digest of the secret at the login. */
  @Column({ name: 'key_digest', type: 'varchar', length: 64 })
  keyDigest!: string;

  /** In ms since 1970, on the database's clock. */
  @Column({ name: 'expires_at', type: 'bigint', unsigned: true })
  expiresAt!: number;
}

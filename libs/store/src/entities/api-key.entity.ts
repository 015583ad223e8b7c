import { Column, Entity, PrimaryColumn } from 'typeorm';

/** An API key. Its secrets are stored as SHA-256, and maybe encrypted. Times are ms since 1970. */
@Entity('api_key')
export class ApiKeyEntity {
  @PrimaryColumn({ type: 'varchar', length: 80 })
  name!: string;

  @Column({ type: 'varchar', length: 16 })
  id!: string;

  @Column({ name: 'secret_digest', type: 'varchar', length: 64 })
  secretDigest!: string;

  /** The digest of the secret before the last rotation. */
  @Column({ name: 'old_digest', type: 'varchar', length: 64, nullable: true })
  oldDigest!: string | null;

  @Column({ name: 'old_until', type: 'bigint', unsigned: true, nullable: true })
  oldUntil!: number | null;

  @Column({ name: 'sealed_secret', type: 'varbinary', length: 200, nullable: true })
  sealedSecret!: Buffer | null;

  @Column({ name: 'old_sealed_secret', type: 'varbinary', length: 200, nullable: true })
  oldSealedSecret!: Buffer | null;

  /** Separated by commas. */
  @Column({ type: 'varchar', length: 100 })
  scopes!: string;

  /** Separated by commas. Empty: every name. */
  @Column({ type: 'varchar', length: 4200 })
  patterns!: string;

  @Column({ name: 'messages_per_second', type: 'int', unsigned: true, nullable: true })
  messagesPerSecond!: number | null;

  @Column({ name: 'long_polls', type: 'int', unsigned: true, nullable: true })
  longPolls!: number | null;

  @Column({ name: 'created_at', type: 'bigint', unsigned: true })
  createdAt!: number;

  @Column({ name: 'expires_at', type: 'bigint', unsigned: true, nullable: true })
  expiresAt!: number | null;

  @Column({ name: 'last_used_at', type: 'bigint', unsigned: true, nullable: true })
  lastUsedAt!: number | null;
}

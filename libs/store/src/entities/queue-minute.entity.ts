import { Column, Entity, PrimaryColumn } from 'typeorm';

const events = { type: 'int', unsigned: true, default: 0 } as const;
const depth = { type: 'int', unsigned: true, nullable: true } as const;

/** A minute of a queue: what happened in it, and what a reaper counted in it. */
@Entity('queue_minute')
export class QueueMinuteEntity {
  /** Since 1970, by the database's clock. */
  @PrimaryColumn({ type: 'int', unsigned: true })
  minute!: number;

  @PrimaryColumn({ name: 'queue_id', type: 'int', unsigned: true })
  queueId!: number;

  @Column(events)
  enqueued!: number;

  @Column(events)
  dequeued!: number;

  @Column(events)
  acked!: number;

  @Column(events)
  nacked!: number;

  @Column({ name: 'dead_lettered', ...events })
  deadLettered!: number;

  @Column(events)
  expired!: number;

  @Column(events)
  purged!: number;

  @Column(events)
  redriven!: number;

  @Column({ name: 'ready_count', ...depth })
  ready!: number | null;

  @Column({ name: 'delayed_count', ...depth })
  delayed!: number | null;

  @Column({ name: 'leased_count', ...depth })
  leased!: number | null;

  @Column({ name: 'waiting_count', ...depth })
  waiting!: number | null;

  @Column({ name: 'oldest_ready_seconds', ...depth })
  oldestReadySeconds!: number | null;
}

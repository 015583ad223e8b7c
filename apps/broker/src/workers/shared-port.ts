import type { Worker } from 'node:cluster';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { stopListening } from '../http/stop-listening.js';
import { CONNECTION, LEAVING, LEFT, TAKEN } from './port-messages.js';

/** The most connections that wait for a worker. */
const MOST_WAITING = 1000;
/** A stop waits this long for workers to take the connections that wait. */
const WAIT_MS = 1000;

/**
 * The port of several workers, in their primary. It accepts connections and hands them to the
 * workers in turn. A worker gets the next one when it has taken the last.
 *
 * Node's own way to share a port closes it when the last worker has stopped, and resets the
 * connections that no worker has got. Requests may be on them. This port closes before the workers
 * stop, and they take all that it accepted.
 */
export class SharedPort {
  private readonly server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) => this.accept(socket));
  private readonly waiting: Socket[] = [];
  /** The workers that take connections. */
  private readonly takers = new Set<Worker>();
  /** Takers that have taken all they got. The one that waits longest is the first. */
  private readonly free = new Set<Worker>();
  /** Takers that want to leave. */
  private readonly leaving = new Set<Worker>();
  private accepted = 0;
  private isHolding = false;
  private isClosed = false;
  private onAllHanded: (() => void) | undefined;

  async listen(port: number, host: string): Promise<AddressInfo> {
    this.server.listen(port, host);
    await once(this.server, 'listening');
    return this.server.address() as AddressInfo;
  }

  /** From now on, this worker gets connections, until it leaves or ends. */
  add(worker: Worker): void {
    worker.on('message', (message) => {
      if (message === TAKEN && this.takers.has(worker)) {
        this.free.add(worker);
        this.hand();
      } else if (message === LEAVING) {
        this.leaving.add(worker);
        this.letLeave();
      }
    });
    worker.once('exit', () => this.remove(worker));
    this.takers.add(worker);
    this.free.add(worker);
    this.hand();
    this.letLeave();
  }

  /** Refuses new connections. Resolves when the workers have got all others. */
  async close(): Promise<void> {
    // Clients that wait for an answer open no further connection.
    this.isHolding = true;
    await stopListening(this.server, () => this.accepted);
    this.isHolding = false;
    this.hand();
    if (this.waiting.length > 0) {
      const allHanded = new Promise<void>((resolve) => (this.onAllHanded = resolve));
      await Promise.race([allHanded, delay(WAIT_MS, undefined, { ref: false })]);
    }
    this.isClosed = true;
    this.letLeave();
  }

  private accept(socket: Socket): void {
    this.accepted += 1;
    socket.on('error', () => undefined);
    if (this.waiting.length >= MOST_WAITING) socket.destroy();
    else this.waiting.push(socket);
    this.hand();
  }

  private hand(): void {
    if (this.isHolding) return;
    for (const worker of this.free) {
      const socket = this.waiting.shift();
      if (socket === undefined) break;
      this.free.delete(worker);
      // The connections of a worker that ends now end, too.
      worker.send(CONNECTION, socket, undefined, () => undefined);
    }
    if (this.waiting.length === 0) this.onAllHanded?.();
  }

  /**
   * Lets workers leave. Ctrl-C reaches the primary and all workers at once. So the last worker
   * stays until another takes its place, or until the port is closed.
   */
  private letLeave(): void {
    for (const worker of this.leaving) {
      if (this.takers.size <= 1 && !this.isClosed) return;
      this.remove(worker);
      // It comes after the connections that the worker has been sent.
      worker.send(LEFT, () => undefined);
    }
  }

  private remove(worker: Worker): void {
    for (const workers of [this.takers, this.free, this.leaving]) workers.delete(worker);
  }
}

import 'reflect-metadata';
import { Controller, Injectable, Module, type ModuleMetadata, Scope } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { RowmqTestingModule } from '../testing/rowmq-testing.module.js';
import { Consumer, OnConsumerEvent, OnMessage } from './decorators.js';
import { RowmqModule } from './rowmq.module.js';

/** Boots an application, and returns the text of the fault. */
async function faultOf(metadata: ModuleMetadata): Promise<string> {
  try {
    const app = await Test.createTestingModule({ ...metadata, imports: metadata.imports ?? [] }).compile();
    app.useLogger(false);
    await app.init();
    await app.close();
  } catch (error) {
    return (error as Error).message;
  }
  return 'it starts';
}

const connection = RowmqTestingModule.forRoot();
const orders = RowmqModule.registerQueue({ name: 'orders' });
const BROKER_URL = 'http://127.0.0.1:1';

@Consumer('orders')
class Mailer {
  @OnMessage()
  mail(): void {}
}

describe('a fault at boot says what to do about', () => {
  it('a consumer among the controllers', async () => {
    @Consumer('orders')
    @Controller()
    class Misplaced {
      @OnMessage()
      mail(): void {}
    }
    @Module({ controllers: [Misplaced] })
    class MailModule {}
    expect(await faultOf({ imports: [connection, orders, MailModule] })).toMatch(
      /Misplaced consumes queue 'orders' but is listed among the controllers of MailModule.*List it among the providers/,
    );
  });

  it('a consumer that two modules provide', async () => {
    @Module({ providers: [Mailer] })
    class OneModule {}
    @Module({ providers: [Mailer] })
    class OtherModule {}
    expect(await faultOf({ imports: [connection, orders, OneModule, OtherModule] })).toMatch(
      /Mailer, which consumes queue 'orders', is provided twice, by OneModule and OtherModule.*Provide it in one module/,
    );
  });

  it('a transient consumer, of which Nest makes an instance without dependencies', async () => {
    @Injectable({ scope: Scope.TRANSIENT })
    @Consumer('orders')
    class Fleeting {
      @OnMessage()
      mail(): void {}
    }
    expect(await faultOf({ imports: [connection, orders], providers: [Fleeting] })).toMatch(
      /Fleeting consumes queue 'orders' but is transient.*Make it a singleton/,
    );
  });

  it('a factory of a registration that returns a connection', async () => {
    const registration = RowmqModule.registerQueueAsync({
      name: 'orders',
      // As JavaScript may: the type of factories refuses it.
      useFactory: (): object => ({ connection: 'billing' }),
    });
    expect(await faultOf({ imports: [connection, registration] })).toMatch(
      /registerQueueAsync\({ name: 'orders' }\) returns the connection 'billing'.*put it beside useFactory/,
    );
  });

  it('isGlobal, because a connection is always global', async () => {
    const options = { url: BROKER_URL, isGlobal: false };
    expect(await faultOf({ imports: [RowmqModule.forRoot(options)] })).toMatch(/isGlobal/);
  });

  it('a handler or a listener in a class without @Consumer', async () => {
    @Injectable()
    class Forgotten {
      @OnMessage()
      mail(): void {}
    }
    @Controller()
    class Elsewhere {
      @OnConsumerEvent('handlerFailed')
      failed(): void {}
    }
    expect(await faultOf({ imports: [connection], providers: [Forgotten] })).toMatch(
      /Forgotten.mail has @OnMessage or @OnBatch, but Forgotten has no @Consumer.*Add @Consumer/,
    );
    expect(await faultOf({ imports: [connection], controllers: [Elsewhere] })).toMatch(
      /Elsewhere.failed has @OnConsumerEvent, but Elsewhere has no @Consumer/,
    );
  });

  it('a listener of an event that there is not', async () => {
    @Consumer('orders')
    class Deaf {
      @OnMessage()
      mail(): void {}
      @OnConsumerEvent('completed' as never)
      done(): void {}
    }
    expect(await faultOf({ imports: [connection, orders], providers: [Deaf] })).toMatch(
      /Deaf.done has @OnConsumerEvent\('completed'\), but a consumer has no such event; it has .*handlerFailed/,
    );
  });

  it('two connections without a name, or with one name', async () => {
    const root = () => RowmqModule.forRoot({ url: BROKER_URL, retries: 0 });
    expect(await faultOf({ imports: [root(), root()] })).toMatch(
      /forRoot is imported twice without a name.*Import it once/,
    );
    expect(await faultOf({ imports: [connection, root()] })).toMatch(/forRoot is imported twice without a name/);
    const named = () => RowmqModule.forRoot({ name: 'billing', url: BROKER_URL, retries: 0 });
    expect(await faultOf({ imports: [named(), named()] })).toMatch(/imported twice with the name 'billing'/);
  });

  it('no connection, or none of that name', async () => {
    expect(await faultOf({ imports: [orders] })).toMatch(
      /Queue 'orders' is registered, but there is no connection: import RowmqModule.forRoot/,
    );
    const billing = RowmqModule.registerQueue({ name: 'bills', connection: 'billing' });
    expect(await faultOf({ imports: [connection, billing] })).toMatch(
      /Queue 'bills' is registered on connection 'billing', which does not exist: .*forRoot\({ name: 'billing', url }\)/,
    );
    @Consumer('orders', { connection: 'billing' })
    class Biller {
      @OnMessage()
      bill(): void {}
    }
    expect(await faultOf({ imports: [connection, orders], providers: [Biller] })).toMatch(
      /Biller consumes queue 'orders' on connection 'billing', which does not exist/,
    );
    expect(await faultOf({ imports: [RowmqModule] })).toMatch(/RowmqModule is imported without forRoot/);
  });

  it('registrations that contradict each other', async () => {
    const register = (registration: object) => RowmqModule.registerQueue({ name: 'orders', ...registration });
    const both = async (one: object, other: object) =>
      faultOf({ imports: [connection, register(one), register(other)] });
    expect(await both({ create: { leaseSeconds: 3 } }, { create: { leaseSeconds: 5 } })).toMatch(
      /Queue 'orders' is registered twice with different settings \({"leaseSeconds":3} and {"leaseSeconds":5}\).*Share one/,
    );
    expect(await both({ create: { delaySeconds: 3 } }, { create: { delaySeconds: 3 }, update: true })).toMatch(
      /different settings .*with update/,
    );
    expect(await both({ create: true }, { update: true })).toMatch(/update: true but no settings/);
    const [one, other] = [z.string(), z.string()];
    expect(await both({ schema: one }, { schema: other })).toMatch(/different schemas or formats/);
    const third = [connection, register({}), register({ schema: one }), register({ schema: other })];
    expect(await faultOf({ imports: third })).toMatch(/different schemas or formats/);
    expect(await both({ schema: one }, { schema: one })).toBe('it starts');
    expect(await both({ create: { leaseSeconds: 3 } }, { create: { leaseSeconds: 3 } })).toBe('it starts');
    expect(await both({ create: { leaseSeconds: 3 } }, {})).toBe('it starts');
    expect(await both({ create: { leaseSeconds: 3 } }, { create: true })).toBe('it starts');
  });

  it('a dead-letter queue that nobody creates, or that is the queue itself', async () => {
    const register = (deadLetterQueue: string) =>
      RowmqModule.registerQueue({ name: 'orders', create: { deadLetterQueue } });
    expect(await faultOf({ imports: [connection, register('lost')] })).toMatch(
      /Queue 'orders' cannot be used: .*'lost' does not exist.*Its registration names the dead-letter queue 'lost'/,
    );
    expect(await faultOf({ imports: [connection, register('orders')] })).toMatch(/its own dead-letter queue/);
  });

  it('two consumers of one queue under two aliases', async () => {
    @Consumer('mine')
    class Mine {
      @OnMessage()
      mail(): void {}
    }
    const alias = RowmqModule.registerQueueAsync({ name: 'mine', useFactory: () => ({ name: 'orders' }) });
    expect(await faultOf({ imports: [connection, orders, alias], providers: [Mailer, Mine] })).toMatch(
      /Mailer and Mine both consume queue 'orders'/,
    );
  });
});
